import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver.errors import InputError
from perceiver.patches import from_patches, neighbourhoods, to_patches, windows


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=2, max_size=3), st.integers(1, 3))
def test_patches_go_back_to_the_whole_bit_for_bit(axes, channels):
    patch = [size for size, _ in axes]
    shape = (2, *(size * count for size, count in axes), channels)
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cut = to_patches(x, patch)
    assert cut.shape == (2, *(count for _, count in axes), np.prod(patch) * channels)
    np.testing.assert_array_equal(from_patches(cut, patch), x)


def test_a_patch_is_ordered_rows_columns_channels():
    x = np.arange(16, dtype=np.float32).reshape(1, 2, 4, 2)
    np.testing.assert_array_equal(to_patches(x, (2, 2))[0, 0, 1], x[0, :, 2:].ravel())
    clip = np.arange(96, dtype=np.float32).reshape(1, 4, 2, 6, 2)
    np.testing.assert_array_equal(to_patches(clip, (2, 1, 3))[0, 1, 1, 0], clip[0, 2:, 1, :3].ravel())


@pytest.mark.parametrize(("shape", "patch"), [((1, 3, 4, 1), (2, 2)), ((1, 4, 4, 1), (2, 2, 2)), ((1, 4, 1), (2,))])
def test_what_is_not_made_of_whole_patches_is_refused(shape, patch):
    with pytest.raises(InputError, match="whole blocks"):
        to_patches(np.zeros(shape, np.float32), patch)


@pytest.mark.parametrize(("shape", "patch"), [((1, 2, 3, 4), (2, 2, 2)), ((1, 2, 2, 3, 8), (2, 2)), ((2, 4), (2, 2))])
def test_patches_of_another_grid_are_refused(shape, patch):
    with pytest.raises(InputError, match=rf"patches with {len(patch)} grid axes .*, got \({shape[0]}, "):
        from_patches(np.zeros(shape, np.float32), patch)


def test_blocks_of_other_numbers_are_refused():
    with pytest.raises(InputError, match="blocks"):
        from_patches(np.zeros((1, 2, 2, 5), np.float32), (2, 2))


def test_neighbourhoods_are_the_pixels_around_with_zeros_outside():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = [[padded[:, i : i + 3, j : j + 3].reshape(2, -1) for j in range(4)] for i in range(3)]
    np.testing.assert_array_equal(neighbourhoods(jnp.asarray(x), 3), np.moveaxis(np.array(expected), 2, 0))


def test_windows_that_touch_are_patches():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(windows(x, (2, 3), (2, 3)), to_patches(x, (2, 3)))


@pytest.mark.parametrize("size", [1, 5])
def test_neighbourhoods_of_every_frame_and_size(size):
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4, 1)).astype(np.float32)
    found = np.asarray(neighbourhoods(jnp.asarray(x), size))
    assert found.shape == (2, 2, 3, 4, size**2)
    np.testing.assert_array_equal(found[..., size**2 // 2], x[..., 0])
    for b, t in np.ndindex(2, 2):
        np.testing.assert_array_equal(found[b, t], neighbourhoods(jnp.asarray(x[b, t]), size))
    if size == 5:
        np.testing.assert_array_equal(found[1, 0, 0, 0].reshape(5, 5)[:2], 0)
        np.testing.assert_array_equal(found[1, 0, 0, 0].reshape(5, 5)[2:, 2:], x[1, 0, :3, :3, 0])


def looped(x, sizes, strides, rates, padding):
    """TensorFlow's extract_patches, one window after the other."""
    spans = [(size - 1) * rate + 1 for size, rate in zip(sizes, rates, strict=True)]
    if padding == "SAME":
        counts = [-(-n // s) for n, s in zip(x.shape[1:3], strides, strict=True)]
        short = [
            max((count - 1) * stride + span - n, 0)
            for count, stride, span, n in zip(counts, strides, spans, x.shape[1:3], strict=True)
        ]
        x = np.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in short), (0, 0)])
    starts = [range(0, n - span + 1, stride) for n, span, stride in zip(x.shape[1:3], spans, strides, strict=True)]
    return np.array(
        [
            [x[:, i : i + spans[0] : rates[0], j : j + spans[1] : rates[1]].reshape(len(x), -1) for j in starts[1]]
            for i in starts[0]
        ]
    ).transpose(2, 0, 1, 3)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("sizes", "strides", "rates"), [((3, 2), (1, 1), (1, 1)), ((2, 3), (2, 3), (2, 1)), ((1, 1), (3, 2), (1, 1))]
)
def test_windows_are_those_of_a_loop(sizes, strides, rates, padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 2)).astype(np.float32)
    expected = looped(x, sizes, strides, rates, padding)
    np.testing.assert_array_equal(windows(jnp.asarray(x), sizes, strides, rates, padding), expected)
