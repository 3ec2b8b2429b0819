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


@pytest.mark.parametrize(("shape", "patch"), [((1, 3, 4, 1), (2, 2)), ((1, 4, 4, 1), (2, 2, 2)), ((1, 4, 1), (2,))])
def test_what_is_not_made_of_whole_patches_is_refused(shape, patch):
    with pytest.raises(InputError, match="whole blocks"):
        to_patches(np.zeros(shape, np.float32), patch)


def test_neighbourhoods_are_the_pixels_around_with_zeros_outside():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = [[padded[:, i : i + 3, j : j + 3].reshape(2, -1) for j in range(4)] for i in range(3)]
    np.testing.assert_array_equal(neighbourhoods(jnp.asarray(x), 3), np.moveaxis(np.array(expected), 2, 0))


def test_windows_that_touch_are_patches():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(windows(x, (2, 3), (2, 3)), to_patches(x, (2, 3)))
