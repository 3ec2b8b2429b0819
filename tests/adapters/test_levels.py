import numpy as np
import pytest

import perceiver as p
from perceiver.adapters.levels import UNKNOWN
from perceiver.io import write_png
from tests.models import built, close, encoding

CONFIG = p.Levels((3, 4), 5, project=6, position=p.Fourier(bands=2))
PICTURES = np.random.default_rng(0).integers(0, 5, (2, 3, 4)).astype(np.int32)


def test_a_pixel_is_a_token_of_its_level_and_place():
    tokens = built(CONFIG)(PICTURES)
    assert tokens.values.shape == (2, CONFIG.tokens, CONFIG.channels)
    assert np.asarray(tokens.mask).all()
    other = PICTURES.copy()
    other[0, 1, 2] = (other[0, 1, 2] + 1) % 5
    changed = np.abs(np.asarray(built(CONFIG)(other).values) - np.asarray(tokens.values)).max(axis=-1) > 1e-6
    assert np.argwhere(changed).tolist() == [[0, 6]]


def test_what_is_not_known_is_not_there():
    encode, gradient = encoding(CONFIG)
    some = np.where(np.arange(12).reshape(3, 4) % 3 == 0, UNKNOWN, PICTURES)
    np.testing.assert_array_equal(np.asarray(built(CONFIG)(some).mask), some.reshape(2, -1) != UNKNOWN)
    assert not np.allclose(encode(some), encode(PICTURES))
    hidden = np.full_like(PICTURES, UNKNOWN)
    close(encode(hidden)[0], encode(hidden)[1])
    absent = np.array([False, True])
    close(encode(PICTURES, absent)[0], encode(hidden)[0])
    assert all(np.isfinite(leaf).all() for leaf in gradient(hidden))


def test_pictures_become_levels_and_levels_pictures(tmp_path):
    grey = CONFIG.pixels(PICTURES[0])
    assert (grey.dtype, grey.shape) == (np.uint8, (3, 4, 1))
    assert {0, 64, 128, 191, 255} >= set(grey.ravel().tolist())
    write_png(tmp_path / "grey.png", grey)
    for source in (grey, grey[..., 0], tmp_path / "grey.png", str(tmp_path / "grey.png")):
        levels, mask = CONFIG.load(source)
        np.testing.assert_array_equal(levels, PICTURES[0])
        assert mask is None
    assert CONFIG.load(np.full((30, 40), 255, np.uint8))[0].tolist() == [[4] * 4] * 3
    assert CONFIG.pixels(np.full((3, 4), UNKNOWN)).max() == 0


def test_what_does_not_fit_is_said():
    with pytest.raises(p.InputError, match="expected levels below 5, got"):
        CONFIG.pixels(np.full((3, 4), 5))
    with pytest.raises(p.InputError, match="expected unsigned integer values, got dtype float32"):
        CONFIG.load(np.zeros((3, 4), np.float32))
    with pytest.raises(p.InputError, match="expected"):
        built(CONFIG)(PICTURES[:, :2])
    with pytest.raises(p.ConfigError, match=r"Levels\.levels: expected 2 to 256, got 1"):
        p.Levels((3, 4), 1)
    with pytest.raises(p.ConfigError, match="must be positive"):
        p.Levels((0, 4), 3)
