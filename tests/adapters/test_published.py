"""Label, Vectors, FramePair, and positions that are added."""

import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver.io import write_png
from tests.models import built, check_masked_elements_do_not_matter

RNG = np.random.default_rng(0)


def test_a_label_is_one_token_by_number_or_weights():
    label = built(p.Label(3))
    np.testing.assert_array_equal(label(np.array([2, 0])).values, np.eye(3)[[2, 0]][:, None])
    np.testing.assert_array_equal(label(np.eye(3, dtype=np.float32)).values, np.eye(3)[:, None])
    hidden = label(np.array([2, 0]), np.array([True, False]))
    np.testing.assert_array_equal(hidden.values[1], 0)
    np.testing.assert_array_equal(hidden.mask, [[True], [False]])


def test_a_label_is_read_by_name_or_number():
    label = p.Label(3, ("ant", "bee", "cat"))
    assert [int(label.load(source)[0]) for source in ("bee", "2", 0)] == [1, 2, 0]
    with pytest.raises(p.InputError, match="did you mean 'bee'"):
        label.load("beee")
    with pytest.raises(p.InputError, match="below 3, got 3"):
        label.load(3)
    with pytest.raises(p.ConfigError, match="as many names"):
        p.Label(2, ("one",))


def test_vectors_are_taken_as_they_are(tmp_path):
    config = p.Vectors(4, 3)
    raw = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(built(config)(raw).values, raw)
    check_masked_elements_do_not_matter(config, raw, np.array([[True, True, False, True]] * 2), np.nan)
    np.save(tmp_path / "v.npy", raw[0, :2])
    loaded, mask = config.load(tmp_path / "v.npy")
    np.testing.assert_array_equal(loaded[:2], raw[0, :2])
    np.testing.assert_array_equal(mask, [True, True, False, False])
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(p.InputError, match="without pickled objects"):
        config.load(tmp_path / "o.npy")
    with pytest.raises(p.InputError, match="at most 4 vectors, got 5"):
        config.load(np.zeros((5, 3), np.float32))


def test_a_pair_of_frames_is_one_token_a_pixel_with_both_surroundings():
    config = p.FramePair((4, 5, 2), project=None, position=p.Fourier(1))
    pair = RNG.random((1, 2, 4, 5, 2)).astype(np.float32)
    tokens = built(config)(pair).values
    assert tokens.shape == (1, 20, config.channels)
    inner = [pair[0, t, 1:4, 2:5].ravel() for t in (0, 1)]  # around row 2, column 3
    np.testing.assert_allclose(tokens[0, 2 * 5 + 3, :36], np.concatenate(inner), atol=1e-6)


def test_frames_are_read_in_pairs_of_the_declared_size(tmp_path):
    config = p.FramePair((4, 5, 3), position=p.Fourier(1))
    frames = RNG.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, frame in zip(paths, frames, strict=True):
        write_png(path, frame)
    for source in (paths, f"{paths[0]},{paths[1]}", frames):
        np.testing.assert_array_equal(config.load(source)[0], frames)
    with pytest.raises(p.InputError, match=r"expected frames of \(4, 5, 3\)"):
        config.load(frames[:, :3])
    with pytest.raises(p.ConfigError, match="odd surround"):
        p.FramePair((4, 5, 3), surround=2)


@pytest.mark.parametrize(
    ("adapter", "raw"),
    [
        (p.Image((4, 4, 1), patch=2, project=6, position=p.Learned(6), add_position=True), (2, 4, 4, 1)),
        (p.Video((2, 2, 2, 1), (1, 1, 1), project=6, position=p.Learned(6), add_position=True), (2, 2, 2, 2, 1)),
        (p.Waveform(8, 8000, patch=2, project=6, position=p.Learned(6), add_position=True), (2, 8)),
    ],
)
def test_positions_may_be_added(adapter, raw):
    module = built(adapter)
    tokens = module(np.zeros(raw, np.float32)).values
    assert adapter.channels == tokens.shape[-1] == 6
    expected = module.embed.project.bias[...] + module.embed.position.table[...]
    np.testing.assert_allclose(tokens[0], expected, atol=1e-6)


def test_positions_that_are_added_have_the_values_width():
    with pytest.raises(p.ConfigError, match="as wide as the values"):
        _ = p.Image((4, 4, 1), position=p.Learned(6), add_position=True).channels


def test_positions_nest():
    position = p.Refined(p.Projected(p.Fourier(2), 5), 2)
    image = p.Image((3, 4, 1), position=position)
    assert image.channels == 6
    assert built(image)(np.zeros((1, 3, 4, 1), np.float32)).values.shape == (1, 12, 6)


def test_an_exclusive_grid_ends_one_step_before_one():
    cells = p.positions.grid_at(jnp.arange(4), (4,), inclusive=False)
    np.testing.assert_allclose(cells[:, 0], [-1.0, -0.5, 0.0, 0.5], atol=1e-7)


def test_every_other_pixel_may_be_left_out():
    image = p.Image((5, 6, 1), subsample=2, position=p.Fourier(1))
    assert image.grid == (3, 3)
    pixels = RNG.random((1, 5, 6, 1)).astype(np.float32)
    np.testing.assert_array_equal(built(image)(pixels).values[0, :, 0], pixels[0, ::2, ::2, 0].ravel())
