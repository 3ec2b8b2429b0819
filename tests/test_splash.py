"""Splash attention, in Pallas' interpreter where there is no TPU, against attention as in a textbook."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import splash
from perceiver.attend import Backend, attend
from perceiver.errors import InputError
from tests.attending import padded, problem, value_and_gradients


@pytest.mark.parametrize(
    ("queries", "keys", "make_mask"),
    [
        (5, 19, padded),
        (5, 19, lambda _: None),
        (130, 300, padded),
        (128, 256, lambda keys: jnp.ones((1, 1, 1, keys), bool)),
    ],
    ids=["padded", "no mask", "several blocks", "whole blocks, one mask for all"],
)
def test_splash_equals_whole_attention_in_values_and_gradients(queries, keys, make_mask, monkeypatch):
    monkeypatch.setattr(splash, "BLOCK", 128)
    given, mask = problem(keys, queries=queries), make_mask(keys)
    ways = (functools.partial(attend, backend=backend) for backend in (Backend.SPLASH, Backend.XLA))
    have, want = (jax.jit(value_and_gradients(way))(*given, mask) for way in ways)
    for actual, expected in zip(have, want, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * float(jnp.abs(expected).max()))
    if make_mask is padded:
        np.testing.assert_array_equal(have[0][1], 0)


def test_half_precision_keeps_its_type_and_is_near():
    given = problem(40, dtype=jnp.bfloat16)
    out = jax.jit(functools.partial(attend, backend=Backend.SPLASH))(*given)
    assert out.dtype == jnp.bfloat16
    expected = attend(*[array.astype(jnp.float32) for array in given], backend=Backend.XLA)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=2e-2)


def test_what_the_kernel_cannot_do_is_refused():
    given = problem(19)
    with pytest.raises(InputError, match="neither dropout nor masks"):
        attend(*given, jnp.ones((2, 1, 5, 19), bool), backend=Backend.SPLASH)
    with pytest.raises(InputError, match="neither dropout nor masks"):
        attend(*given, dropout=0.1, key=jax.random.key(0), backend=Backend.SPLASH)
