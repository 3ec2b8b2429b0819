"""Splash attention, in Pallas' interpreter where there is no TPU, against attention as in a textbook."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import splash
from perceiver.attend import Backend, attend
from perceiver.errors import InputError


def arrays(queries, keys, widths=(6, 10), dtype=jnp.float32):
    rng = np.random.default_rng(keys)
    qk, v = widths
    shapes = ((2, queries, 3, qk), (2, keys, 3, qk), (2, keys, 3, v))
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def padded(keys):
    """The first sample has two thirds of the keys, the second none."""
    return jnp.asarray(np.arange(keys) < np.array([[keys - keys // 3], [0]]))[:, None, None]


def both_ways(backend, mask, *given):
    """Values, and gradients of a sum that weighs every element differently."""
    out, back = jax.vjp(lambda q, k, v: attend(q, k, v, mask, backend=backend), *given)
    return out, *back(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype))


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
    given, mask = arrays(queries, keys), make_mask(keys)
    have, want = (jax.jit(functools.partial(both_ways, way, mask))(*given) for way in (Backend.SPLASH, Backend.XLA))
    for actual, expected in zip(have, want, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-6 * float(jnp.abs(expected).max()))
    if make_mask is padded:
        np.testing.assert_array_equal(have[0][1], 0)


def test_half_precision_keeps_its_type_and_is_near():
    given = arrays(5, 40, dtype=jnp.bfloat16)
    out = jax.jit(functools.partial(attend, backend=Backend.SPLASH))(*given)
    assert out.dtype == jnp.bfloat16
    expected = attend(*[array.astype(jnp.float32) for array in given], backend=Backend.XLA)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=2e-2)


def test_what_the_kernel_cannot_do_is_refused():
    given = arrays(5, 19)
    with pytest.raises(InputError, match="neither dropout nor masks"):
        attend(*given, jnp.ones((2, 1, 5, 19), bool), backend=Backend.SPLASH)
    with pytest.raises(InputError, match="neither dropout nor masks"):
        attend(*given, dropout=0.1, key=jax.random.key(0), backend=Backend.SPLASH)
