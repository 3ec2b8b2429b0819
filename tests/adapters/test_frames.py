import numpy as np
import pytest

import perceiver as p
from perceiver.errors import ConfigError, InputError
from perceiver.io import write_png
from tests.models import built, check_masked_elements_do_not_matter, close

HALF = (0.5, 0.5)
SMALL = p.FramePair((4, 5, 2), project=6, position=p.Fourier(bands=1), mean=HALF, std=HALF)
PAIR = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 5, 2), dtype=np.uint8)


def test_tokens_are_pixels_row_by_row_projected_and_then_their_positions():
    tokens = built(SMALL)(PAIR)
    assert tokens.values.shape == (2, SMALL.tokens, SMALL.channels) == (2, 20, 6 + 6)
    assert tokens.mask is None
    np.testing.assert_allclose(tokens.values[0, 19, 6:8], [1, 1], atol=1e-6)
    np.testing.assert_allclose(tokens.values[0, 5, 6:8], [-1 + 2 / 3, -1], atol=1e-6)


def test_bytes_and_the_same_numbers_as_floats_give_the_same_tokens():
    close(built(SMALL)(PAIR).values, built(SMALL)((PAIR / 255).astype(np.float32)).values, 1e-6)


def test_without_surroundings_a_token_is_the_pixel_in_both_frames():
    values = built(p.FramePair((4, 5, 2), surround=1, project=None, position=p.Fourier(1), mean=HALF, std=HALF))(PAIR)
    expected = np.concatenate([PAIR[:, 0], PAIR[:, 1]], axis=-1).reshape(2, 20, 4) / 127.5 - 1
    np.testing.assert_allclose(values.values[..., :4], expected, atol=1e-6)


def test_a_token_holds_the_surroundings_of_its_pixel_in_both_frames():
    pair = (PAIR[:1] / 255).astype(np.float32)
    tokens = built(p.FramePair((4, 5, 2), project=None, position=p.Fourier(1)))(pair).values
    inner = [pair[0, t, 1:4, 2:5].ravel() for t in (0, 1)]  # around row 2, column 3
    np.testing.assert_allclose(tokens[0, 2 * 5 + 3, :36], np.concatenate(inner), atol=1e-6)


def test_frames_are_read_in_pairs(tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, frame in zip(paths, frames, strict=True):
        write_png(path, frame)
    for source in (paths, f"{paths[0]},{paths[1]}"):
        np.testing.assert_array_equal(p.FramePair((4, 5, 3)).load(source)[0], frames)


def test_what_a_mask_hides_does_not_matter():
    floats = (PAIR / 255).astype(np.float32)
    check_masked_elements_do_not_matter(SMALL, floats, np.array([True, False]), np.nan)
    hidden = built(SMALL)(PAIR, np.array([True, False])).mask
    np.testing.assert_array_equal(hidden, np.repeat([[True], [False]], 20, axis=1))


@pytest.mark.parametrize(
    ("raw", "mask", "message"),
    [
        (PAIR[:, :1], None, r"shape \(b, 2, 4, 5, 2\), got \(2, 1, 4, 5, 2\)"),
        (PAIR[:, :, :3], None, r"got \(2, 2, 3, 5, 2\)"),
        (PAIR[0], None, r"got \(2, 4, 5, 2\)"),
        (PAIR.astype(np.int16), None, "got dtype int16"),
        (PAIR.astype(np.uint16), None, "uint8 or floating point values in .0, 1., got dtype uint16"),
        (PAIR, np.ones((2, 2), bool), r"\(2,\) or \(2, 20\), got \(2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(raw, mask, message):
    with pytest.raises(InputError, match=message):
        built(SMALL)(raw, mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (0, 5, 2)}, r"positive sizes and an odd surround, got \(0, 5, 2\), 3"),
        ({"surround": 0}, "odd surround, got .*, 0"),
        ({"surround": 4}, "odd surround, got .*, 4"),
        ({"mean": (0.5,), "std": (0.5,)}, "FramePair: expected 2 means and deviations, got 1 and 1"),
        ({"mean": HALF, "std": (0.5, 0.0)}, "above 0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        p.FramePair(**{"shape": (4, 5, 2)} | fields)


def test_an_array_in_place_of_files():
    np.testing.assert_array_equal(SMALL.load(PAIR[0])[0], PAIR[0])
    assert SMALL.load(PAIR[0])[1] is None
    assert (PAIR[0].shape, PAIR.dtype) == (SMALL.example(1).shape[1:], SMALL.example(1).dtype)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a.png", "two frames as EARLIER,LATER, got 1"),
        ("a.png,b.png,c.png", "two frames as EARLIER,LATER, got 3"),
        (["a.png", "missing.png"], "missing.png"),
        (["a.png", "wide.png"], r"two frames of one size, got \(4, 5, 3\) and \(4, 6, 3\)"),
        (["wide.png", "wide.png"], r"expected frames of \(4, 5, 3\), got \(4, 6, 3\)"),
        (np.zeros((3, 4, 5, 3), np.uint8), r"shape \(2, h, w, 3\), got \(3, 4, 5, 3\)"),
        (np.zeros((2, 4, 5, 3), np.float32), "got dtype float32"),
        (np.zeros((2, 4, 5, 3), np.uint16), "uint8, got dtype uint16"),
        ([[1], [2, 3]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png("a.png", np.zeros((4, 5, 3), np.uint8))
    write_png("wide.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(InputError, match=message):
        p.FramePair((4, 5, 3)).load(source)
