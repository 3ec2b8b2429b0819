import numpy as np
import pytest

import perceiver as p
from perceiver.errors import ConfigError, InputError
from tests.models import built, check_masked_elements_do_not_matter, close, encoding

SMALL = p.Video((4, 4, 6, 2), patch=(2, 2, 3), position=p.Fourier(bands=1), mean=(0.5, 0.5), std=(0.5, 0.5))
CLIP = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 6, 2), dtype=np.uint8)


def test_tokens_are_patches_with_time_slowest_and_ordered_dt_dh_dw_c():
    values = built(SMALL)(CLIP).values
    assert values.shape == (2, SMALL.tokens, SMALL.channels) == (2, 8, 24 + 9)
    scaled = CLIP / 127.5 - 1
    np.testing.assert_allclose(values[0, 1, :24], scaled[0, :2, :2, 3:].ravel(), atol=1e-5)
    np.testing.assert_allclose(values[1, 6, :24], scaled[1, 2:, 2:, :3].ravel(), atol=1e-5)
    np.testing.assert_allclose(values[0, 6, 24:27], [1, 1, -1], atol=1e-6)


def test_bytes_and_the_same_numbers_as_floats_give_the_same_tokens():
    module = built(SMALL)
    close(module(CLIP).values, module((CLIP / 255).astype(np.float32)).values, 1e-6)


def test_frames_padded_behind_under_a_mask_change_nothing():
    encode, _ = encoding(SMALL)
    mask = np.arange(4) < np.array([[2], [2]])
    close(encode(np.where(mask[..., None, None, None], CLIP, 0), mask), encode(CLIP[:, :2]))


def test_what_a_mask_hides_does_not_matter():
    floats = (CLIP / 255).astype(np.float32)
    frames = np.arange(4) < np.array([[3], [4]])  # ends in the middle of a patch
    check_masked_elements_do_not_matter(SMALL, floats, frames, np.nan)
    check_masked_elements_do_not_matter(SMALL, CLIP, np.array([True, False]), 9)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 4, 4, 5, 2), np.uint8), r"shape \(b, t, 4, 6, 2\), got \(2, 4, 4, 5, 2\)"),
        (np.zeros((2, 3, 4, 6, 2), np.uint8), "multiples of 2 up to 4, got 3"),
        (np.zeros((2, 6, 4, 6, 2), np.uint8), "multiples of 2 up to 4, got 6"),
        (np.zeros((2, 4, 4, 6, 2), np.int8), "got dtype int8"),
        (np.zeros((2, 4, 4, 6, 2), np.uint32), "got dtype uint32"),
    ],
)
def test_what_does_not_fit_is_refused(raw, message):
    module = built(SMALL)
    with pytest.raises(InputError, match=message):
        module(raw)
    with pytest.raises(InputError, match="mask must have shape"):
        module(CLIP, np.ones((2, 3), bool))


def test_a_config_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="not made of whole"):
        p.Video((3, 4, 4, 1), patch=(2, 2, 2))


def test_a_short_clip_is_loaded_with_its_mask():
    frames, mask = SMALL.load(CLIP[0, :3])
    np.testing.assert_array_equal(frames[:3], CLIP[0, :3])
    np.testing.assert_array_equal(frames[3], 0)
    np.testing.assert_array_equal(mask, [True, True, True, False])
    assert frames.shape == SMALL.example(1).shape[1:]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((5, 4, 6, 2), np.uint8), "at most 4 frames, got 5"),
        (np.zeros((4, 4, 6, 3), np.uint8), r"got \(4, 4, 6, 3\)"),
        (np.zeros((4, 4, 6, 2)), "got dtype float64"),
        ([[1], [2, 3]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)


def test_positions_that_are_added_have_the_values_width():
    with pytest.raises(ConfigError, match=r"a position of 24 channels, as wide as the values, got 9"):
        p.PerceiverConfig({"clip": p.Video(SMALL.shape, SMALL.patch, position=p.Fourier(1), add_position=True)},
                          p.Encoder(2, 8, 1), {}).abstract()  # fmt: skip
