import jax
import numpy as np
import pytest

import perceiver as p
from perceiver.saving import weights
from perceiver.zoo.resizing import resize_table, resized
from tests.models import CARRIED, filled

ENCODER = p.Encoder(2, 8, 1)


def model(**fields):
    return filled_model({"image": p.Image((4, 6, 3), **fields)})


def filled_model(inputs):
    config = p.PerceiverConfig(inputs, ENCODER, {"label": p.Classes(2)})
    return filled(lambda rngs: config.initial(rngs.params()))


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
    assert jax.eval_shape(lambda: large({"image": np.zeros((1, 8, 9, 3), np.uint8)}))["label"].shape == (1, 2)
    corners = [np.asarray(m.tokenise({"image": np.zeros((1, *s, 3), np.uint8)})["image"].values)
               for m, s in ((small, (4, 6)), (large, (8, 9)))]  # fmt: skip
    np.testing.assert_allclose(corners[0][0, [0, -1]], corners[1][0, [0, -1]], atol=1e-6)


def test_learned_positions_are_interpolated_wherever_they_are():
    large = resized(model(project=4, position=p.Refined(p.Projected(p.Learned(5), 4), 1)), 6, 6)
    assert weights(large)["adapters.image.embed.position.position.position.table"].shape == (36, 5)


def test_a_model_without_that_image_is_refused():
    text = filled_model({"text": p.Bytes(4, width=8)})
    with pytest.raises(p.InputError, match=r"inputs\['image'\]: expected an Image"):
        resized(text, 4, 4)


def test_the_same_size_is_the_same_model():
    small = model(patch=2, position=p.Learned(4))
    again = resized(small, 4, 6)
    assert again.config == small.config
    for name, value in weights(small).items():
        np.testing.assert_array_equal(weights(again)[name], value)


def test_only_the_named_picture_is_resized():
    inputs = {name: p.Image((4, 6, 3), patch=2, position=p.Learned(4)) for name in ("left", "right")}
    small = filled_model(inputs)
    large = resized(small, 8, 6, "left")
    assert large.config.inputs["left"].shape == (8, 6, 3)
    assert large.config.inputs["right"] == small.config.inputs["right"]
    moved = {n for n, v in weights(small).items() if weights(large)[n].shape != v.shape}
    assert moved == {"adapters.left.embed.position.table"}


def test_the_frequencies_behind_convolutions_are_those_of_their_map():
    large = resized(model(stem=p.ConvStem(2), position=p.Projected(p.Fourier(2), 3)), 8, 12)
    assert large.config.inputs["image"].position.position.max_resolution == (1.0, 2.0)
    assert large.config.inputs["image"].grid == (2, 3)


def test_a_size_that_the_picture_cannot_have_is_refused():
    with pytest.raises(p.ConfigError, match=r"shape \(5, 6, 3\) is not made of whole 2 x 2 patches"):
        resized(model(patch=2), 5, 6)


def test_a_model_of_towers_is_refused():
    with pytest.raises(p.InputError, match="expected an Image"):
        resized(p.from_pretrained(CARRIED / "hf_vit"), 8, 8)
