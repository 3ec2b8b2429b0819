"""Small attention problems, attention as in a textbook, and gradients of whatever computes it."""

import jax
import jax.numpy as jnp
import numpy as np


def problem(keys, seed=0, queries=5, widths=(6, 10), dtype=np.float32):
    rng = np.random.default_rng(seed)
    qk, v = widths
    shapes = ((2, queries, 3, qk), (2, keys, 3, qk), (2, keys, 3, v))
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)


def padded(keys):
    """A mask of tokens as a cross-attend gives it; the second sample has none."""
    return jnp.asarray(np.arange(keys) < np.array([[keys - keys // 3], [0]]))[:, None, None]


def explicit(q, k, v, mask=None, drop=1.0):
    """Attention as in a textbook."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = jnp.exp(logits) if mask is None else jnp.where(mask, jnp.exp(logits), 0)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1, total) * drop
    return jnp.einsum("bhqk,bkhe->bqhe", weights, v)


def value_and_gradients(function):
    """A function (q, k, v, ...) -> its value and gradients of a sum that weighs every element differently."""

    def both(q, k, v, *rest):
        out, back = jax.vjp(lambda *qkv: function(*qkv, *rest), q, k, v)
        return out, *back(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape).astype(out.dtype))

    return both
