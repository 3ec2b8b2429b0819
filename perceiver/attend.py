"""Softmax attention: one function, three ways to compute it, one place that chooses.

All take queries [b, q, h, d], keys [b, k, h, d] and values [b, k, h, e] and give [b, q, h, e]. The mask is bool and
broadcasts to [b, h, q, k], True = may attend. A query with no key to attend to gives zeros.
"""

import enum
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.errors import InputError
from perceiver.typing import Array, Bool, Float

BLOCK = 2048
"""Keys that the chunked path looks at together."""

LOGIT_BUDGET = 2**24
"""Logits (batch x heads x queries x keys) above which the XLA path would hold too much at once: 64 MiB in float32."""


class Backend(enum.Enum):
    """How attention is computed."""

    XLA = "whole logits, fused by XLA"
    CHUNKED = "blocks of keys with a running softmax, recomputed in the backward pass"
    CUDNN = "cuDNN's fused kernel"


class Problem(NamedTuple):
    """What the choice of a backend depends on."""

    batch: int
    heads: int
    queries: int
    keys: int
    qk_width: int
    v_width: int
    dtype: jnp.dtype
    dropout: float = 0.0


def choose_backend(problem: Problem, platform: str | None = None) -> Backend:
    """The backend that `attend` takes for a problem on a platform ("cpu", "gpu", "tpu"; default: the present one)."""
    platform = jax.default_backend() if platform is None else platform
    half = problem.dtype in (jnp.bfloat16, jnp.float16)
    width = problem.qk_width
    fits = half and width == problem.v_width and width % 8 == 0 and width <= 128
    if platform == "gpu" and fits and not problem.dropout:
        return Backend.CUDNN
    logits = problem.batch * problem.heads * problem.queries * problem.keys
    return Backend.CHUNKED if problem.keys > BLOCK and logits > LOGIT_BUDGET else Backend.XLA


def attend(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h e"],
    mask: Bool[Array, "#b #h #q k"] | None = None,
    *,
    dropout: float = 0.0,
    key: jax.Array | None = None,
    backend: Backend | None = None,
) -> Float[Array, "b q h e"]:
    """Scaled dot-product attention with softmax statistics in float32.

    dropout: rate on the attention weights, applied only when `key` is given.
    backend: None lets `choose_backend` decide.

    Raises:
        InputError: shapes that do not belong together.
    """
    _check(q, k, v, mask)
    rate = dropout if key is not None else 0.0
    if backend is None:
        shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1], q.shape[3], v.shape[3])
        backend = choose_backend(Problem(*shape, q.dtype, rate))
    if backend is Backend.CUDNN:
        return _cudnn(q, k, v, mask)
    if backend is Backend.CHUNKED:
        return _chunked(q, k, v, mask, key if rate else None, rate)
    return _whole(q, k, v, mask, key if rate else None, rate)


def attention_weights(
    q: Float[Array, "b q h d"], k: Float[Array, "b k h d"], mask: Bool[Array, "#b #h #q k"] | None = None
) -> Float[Array, "b h q k"]:
    """The softmax weights themselves, float32, zero in rows with no key; for pictures and diagnostics."""
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    if mask is None:
        return jax.nn.softmax(logits)
    logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    return jnp.where(mask, jax.nn.softmax(logits), 0.0)


def _check(q: Array, k: Array, v: Array, mask: Array | None) -> None:
    together = (
        q.ndim == k.ndim == v.ndim == 4
        and q.shape[0] == k.shape[0] == v.shape[0]
        and q.shape[2] == k.shape[2] == v.shape[2]
        and q.shape[3] == k.shape[3]
        and k.shape[1] == v.shape[1]
    )
    if not together:
        raise InputError(
            "expected queries [b, q, h, d], keys [b, k, h, d], values [b, k, h, e], "
            f"got {q.shape}, {k.shape}, {v.shape}"
        )
    if mask is None:
        return
    full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    fits = mask.ndim == 4 and all(have in (1, want) for have, want in zip(mask.shape[:3], full[:3], strict=True))
    if mask.dtype != bool or not fits or mask.shape[3] != full[3]:
        raise InputError(f"expected a bool mask that broadcasts to {full}, got {mask.dtype} {mask.shape}")


def _drop(shape: tuple[int, ...], rate: float, key: jax.Array) -> Array:
    return jax.random.bernoulli(key, 1.0 - rate, shape).astype(jnp.float32) / (1.0 - rate)


def _whole(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    weights = attention_weights(q, k, mask)
    if key is not None:
        weights = weights * _drop(weights.shape, rate, key)
    return jnp.einsum("bhqk,bkhe->bqhe", weights.astype(v.dtype), v)


def _cudnn(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    if mask is None:
        return out
    seen = jnp.moveaxis(mask.any(axis=-1), 1, 2)  # cuDNN averages over all keys where none may be seen
    return jnp.where(seen[..., None], out, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _chunked(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    return _chunked_forward(q, k, v, mask, key, rate)[0]


def _blocks(keys: int, step, carry):
    """Run step(carry, start, size) over whole blocks in a loop and then over the rest."""
    size = min(BLOCK, keys)
    count = keys // size
    if count:
        carry = jax.lax.fori_loop(0, count, lambda i, c: step(c, i * size, size), carry)
    return step(carry, count * size, keys - count * size) if keys % size else carry


def _logits(q: Array, k: Array, mask: Array | None, start, size: int) -> Array:
    """Scaled logits [b, h, q, size] of one block, -inf where masked."""
    block = jax.lax.dynamic_slice_in_dim(k, start, size, axis=1)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, block, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    if mask is None:
        return logits
    return jnp.where(jax.lax.dynamic_slice_in_dim(mask, start, size, axis=3), logits, -jnp.inf)


def _chunked_forward(q, k, v, mask, key, rate):
    b, n, h, _ = q.shape

    def step(carry, start, size):
        top, total, out = carry
        logits = _logits(q, k, mask, start, size)
        new_top = jnp.maximum(top, logits.max(axis=-1))
        safe = jnp.where(jnp.isneginf(new_top), 0.0, new_top)
        weights = jnp.exp(logits - safe[..., None])
        shrink = jnp.exp(top - safe)
        total = total * shrink + weights.sum(axis=-1)
        if key is not None:
            weights = weights * _drop(weights.shape, rate, jax.random.fold_in(key, start))
        values = jax.lax.dynamic_slice_in_dim(v, start, size, axis=1)
        part = jnp.einsum("bhqk,bkhe->bhqe", weights.astype(v.dtype), values, preferred_element_type=jnp.float32)
        return new_top, total, out * shrink[..., None] + part

    start = (
        jnp.full((b, h, n), -jnp.inf, jnp.float32),
        jnp.zeros((b, h, n), jnp.float32),
        jnp.zeros((b, h, n, v.shape[-1]), jnp.float32),
    )
    top, total, out = _blocks(k.shape[1], step, start)
    seen = total > 0
    out = jnp.where(seen[..., None], out / jnp.where(seen, total, 1.0)[..., None], 0.0)
    # +inf where nothing was seen, so that exp(logit - logsumexp) is 0 there in the backward pass.
    logsumexp = jnp.where(seen, top + jnp.log(jnp.where(seen, total, 1.0)), jnp.inf)
    out = jnp.moveaxis(out, 1, 2).astype(v.dtype)
    return out, (q, k, v, mask, key, out, logsumexp)


def _chunked_backward(rate, saved, grad):
    q, k, v, mask, key, out, logsumexp = saved
    scale = 1.0 / math.sqrt(q.shape[-1])
    grad32 = grad.astype(jnp.float32)
    inner = jnp.einsum("bqhe,bqhe->bhq", grad32, out.astype(jnp.float32))

    def step(carry, start, size):
        dq, dk, dv = carry
        keys = jax.lax.dynamic_slice_in_dim(k, start, size, axis=1)
        values = jax.lax.dynamic_slice_in_dim(v, start, size, axis=1)
        weights = jnp.exp(_logits(q, k, mask, start, size) - logsumexp[..., None])
        dweights = jnp.einsum("bqhe,bkhe->bhqk", grad, values, preferred_element_type=jnp.float32)
        kept = weights
        if key is not None:
            drop = _drop(weights.shape, rate, jax.random.fold_in(key, start))
            kept, dweights = weights * drop, dweights * drop
        dlogits = (weights * (dweights - inner[..., None]) * scale).astype(q.dtype)
        dq = dq + jnp.einsum("bhqk,bkhd->bqhd", dlogits, keys, preferred_element_type=jnp.float32)
        dkeys = jnp.einsum("bhqk,bqhd->bkhd", dlogits, q)
        dvalues = jnp.einsum("bhqk,bqhe->bkhe", kept.astype(grad.dtype), grad)
        dk = jax.lax.dynamic_update_slice_in_dim(dk, dkeys.astype(k.dtype), start, axis=1)
        dv = jax.lax.dynamic_update_slice_in_dim(dv, dvalues.astype(v.dtype), start, axis=1)
        return dq, dk, dv

    start = (jnp.zeros(q.shape, jnp.float32), jnp.zeros_like(k), jnp.zeros_like(v))
    dq, dk, dv = _blocks(k.shape[1], step, start)
    return dq.astype(q.dtype), dk, dv, None, None


_chunked.defvjp(_chunked_forward, _chunked_backward)
