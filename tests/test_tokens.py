import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.errors import InputError
from perceiver.tokens import Tokens, check_array, concatenate, presence

MASK = jnp.array([[True, False], [True, True]])


def test_clearing_zeroes_masked_tokens_even_nan():
    values = jnp.array([[[1.0], [jnp.nan]], [[2.0], [3.0]]])
    np.testing.assert_array_equal(Tokens(values, MASK).cleared().values, [[[1.0], [0.0]], [[2.0], [3.0]]])
    np.testing.assert_array_equal(Tokens(values).cleared().values, values)


def test_clearing_stops_gradients_of_nan():
    gradient = jax.grad(lambda x: (Tokens(jnp.sqrt(x), MASK).cleared().values).sum())(jnp.full((2, 2, 1), 4.0))
    np.testing.assert_array_equal(gradient[..., 0], jnp.where(MASK, 0.25, 0.0))


def test_concatenation_keeps_order_and_fills_in_masks():
    first, second = Tokens(jnp.zeros((2, 2, 3)), MASK), Tokens(jnp.ones((2, 1, 3)))
    joined = concatenate([first, second])
    np.testing.assert_array_equal(joined.values[:, :, 0], [[0, 0, 1]] * 2)
    np.testing.assert_array_equal(joined.mask, [[True, False, True], [True, True, True]])
    assert concatenate([second, second]).mask is None
    assert joined.channels == 3


def test_tokens_pass_through_transformations():
    doubled = jax.jit(lambda tokens: jax.tree.map(lambda x: x, tokens))(Tokens(jnp.ones((1, 2, 3)), MASK[:1]))
    assert isinstance(doubled, Tokens)
    assert doubled.mask.shape == (1, 2)


def test_presence_spreads_over_elements():
    np.testing.assert_array_equal(presence(jnp.array([True, False]), 2, 3), [[True] * 3, [False] * 3])
    np.testing.assert_array_equal(presence(MASK, 2, 2), MASK)
    assert presence(None, 2, 3) is None


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.ones((2, 3)), "must be bool"), (np.ones(3, bool), r"\(2,\) or \(2, 3\), got \(3,\)")],
)
def test_presence_refuses_another_dtype_or_shape(mask, message):
    with pytest.raises(InputError, match=message):
        presence(mask, 2, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[1.0, 2.0]], r"an array of shape \(b, 2\), got list"),
        (np.zeros((1, 3)), r"shape \(b, 2\), got \(1, 3\)"),
        (np.zeros(2), r"shape \(b, 2\), got \(2,\)"),
        (np.zeros((0, 2)), "at least one element"),
        (np.zeros((1, 2), np.int32), "floating point values, got dtype int32"),
        (np.zeros((1, 2), bool), "got dtype bool"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_was_expected(array, message):
    with pytest.raises(InputError, match=message):
        check_array(array, ("b", 2))


def test_arrays_that_fit_pass():
    check_array(jnp.zeros((5, 2), jnp.bfloat16), ("b", 2))
    check_array(np.zeros((5, 2), np.uint8), ("b", 2), "fu")
