import numpy as np
import pytest

import perceiver as p
from perceiver.saving import weights
from perceiver.zoo.resizing import resize_table, resized

ENCODER = p.Encoder(2, 8, 1)


def model(**fields):
    return p.PerceiverConfig({"image": p.Image((4, 6, 3), **fields)}, ENCODER, {"label": p.Classes(2)}).build(0)


def test_the_same_size_is_the_same_table():
    table = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    np.testing.assert_allclose(resize_table(table, (4, 6), (4, 6)), table, atol=1e-6)


@pytest.mark.parametrize("new", [(7, 9), (3, 4), (1, 12)])
def test_interpolation_is_pytorchs(new):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    grid = torch.from_numpy(table.reshape(1, 4, 6, 5).transpose(0, 3, 1, 2))
    expected = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    expected = expected.numpy().transpose(0, 2, 3, 1).reshape(-1, 5)
    np.testing.assert_allclose(resize_table(table, (4, 6), new), expected, atol=1e-5)


def test_fourier_features_keep_their_frequencies():
    small = model(position=p.Fourier(2))
    large = resized(small, 8, 9)
    assert large.config.inputs["image"].position.max_resolution == (4.0, 6.0)
    assert large({"image": np.zeros((1, 8, 9, 3), np.uint8)})["label"].shape == (1, 2)
    corners = [np.asarray(m.tokenise({"image": np.zeros((1, *s, 3), np.uint8)})["image"].values)
               for m, s in ((small, (4, 6)), (large, (8, 9)))]  # fmt: skip
    np.testing.assert_allclose(corners[0][0, [0, -1]], corners[1][0, [0, -1]], atol=1e-6)


def test_learned_positions_are_interpolated_wherever_they_are():
    large = resized(model(project=4, position=p.Refined(p.Projected(p.Learned(5), 4), 1)), 6, 6)
    assert weights(large)["adapters.image.embed.position.position.position.table"].shape == (36, 5)


def test_a_model_without_that_image_is_refused():
    text = p.PerceiverConfig({"text": p.Bytes(4, width=8)}, ENCODER, {"label": p.Classes(2)}).build(0)
    with pytest.raises(p.InputError, match=r"inputs\['image'\]: expected an Image"):
        resized(text, 4, 4)
