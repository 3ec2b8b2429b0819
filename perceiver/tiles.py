"""Attention in tiles of queries and keys: memory flat in both, and a backward pass that recomputes.

Keys are taken block by block with a running softmax (Rabe and Staats, arXiv 2112.05682), queries likewise, and the
backward pass starts from the saved logsumexp (FlashAttention, arXiv 2205.14135). Logits therefore never exist as a
whole. A tile is small enough for the caches of a CPU, and large enough to fill an accelerator.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from perceiver.products import one_at_a_time
from perceiver.typing import Array, Bool

CPU_TILE = 2**20
"""Logits (batch x heads x queries x keys) of one tile on a CPU: 4 MiB in float32."""

DEVICE_TILE = 2**25
"""The same on an accelerator, where a step costs more than the memory: 128 MiB in float32."""

FEWEST_KEYS, FEWEST_QUERIES = 512, 128
"""What is looked at together at least."""

SAVED = ("attended", "logsumexp")
"""Names under which `jax.checkpoint` finds what the backward pass starts from."""


def tile_size() -> int:
    """Logits of one tile on the present platform."""
    return CPU_TILE if jax.default_backend() == "cpu" else DEVICE_TILE


def span(rows: int, keys: int) -> int:
    """How many keys to look at together when `rows` queries do; all where that is any number, in exported programs."""
    return keys if not isinstance(rows, int) else min(keys, max(FEWEST_KEYS, tile_size() // rows))


def sweep(count: int, size: int, step: Callable[[Any, Any, int], Any], carry: Any) -> Any:
    """Run step(carry, start, size) over whole blocks of an axis in a loop and then over the rest."""
    whole = count // size
    if whole == 1:
        carry = step(carry, 0, size)
    elif whole:
        carry = jax.lax.fori_loop(0, whole, lambda i, c: step(c, i * size, size), carry)
    return step(carry, whole * size, count - whole * size) if count % size else carry


def soften(logits: Array, top: Array) -> tuple[Array, Array, Array]:
    """One step of a running softmax over the last axis: unnormalised weights of a block of logits.

    top: the largest logit so far, -inf before the first. Returns the weights, the new largest, and the factor that
    everything summed up so far has to be multiplied with.
    """
    new_top = jnp.maximum(top, logits.max(axis=-1))
    safe = jnp.where(jnp.isneginf(new_top), 0.0, new_top)
    return jnp.exp(logits - safe[..., None]), new_top, jnp.exp(top - safe)


def settle(top: Array, total: Array) -> tuple[Array, Array]:
    """The end of a running softmax: what to divide the sums by, and the logsumexp.

    A row that saw nothing is divided by 1, and its logsumexp is +inf, so that exp(logit - logsumexp) is 0 there in the
    backward pass.
    """
    seen = total > 0
    safe = jnp.where(seen, total, 1.0)
    return safe, jnp.where(seen, top + jnp.log(safe), jnp.inf)


def differs_by_query(mask: Bool[Array, "#b #h #q k"] | None) -> bool:
    """Whether a mask may hide other keys from one query or head than from another."""
    return mask is not None and mask.shape[1:3] != (1, 1)


def drop_weights(shape: tuple[int, ...], rate: float, key: jax.Array) -> Array:
    """Factors of dropout: 0 or 1 / (1 - rate)."""
    return jax.random.bernoulli(key, 1.0 - rate, shape).astype(jnp.float32) / (1.0 - rate)


def attend_in_tiles(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    """As `perceiver.attend.attend`. key: None without dropout."""
    scale = jnp.asarray(1.0 / math.sqrt(q.shape[-1]), q.dtype)
    return _tiled(q * scale, k, v, mask, key, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _tiled(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    """Attention with queries that are scaled already."""
    return forward(q, k, v, mask, key, rate)[0]


def _sizes(q: Array, k: Array) -> tuple[int, int]:
    """Queries and keys of a tile: all keys where that leaves enough queries, blocks of them otherwise."""
    b, queries, h, _ = q.shape
    keys = span(b * h * min(queries, FEWEST_QUERIES), k.shape[1])
    return min(queries, max(FEWEST_QUERIES, tile_size() // (b * h * keys))), keys


def _cut(x: Array, start, size: int, axis: int) -> Array:
    """A block along one axis; an axis of 1 stands for any length, and all of an axis needs no cutting."""
    return x if x.shape[axis] in (1, size) else jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _heads(x: Array, start, size: int) -> Array:
    """A block of [b, n, h, d] as [b, h, size, d]. Only blocks are turned: turning the whole would take a copy of it."""
    return jnp.swapaxes(x if x.shape[1] == size else jax.lax.dynamic_slice_in_dim(x, start, size, 1), 1, 2)


def _put(whole: Array, block: Array, start) -> Array:
    """[b, n, h, d] with a block [b, h, size, d] in its place."""
    block = jnp.swapaxes(block, 1, 2).astype(whole.dtype)
    return block if whole.shape == block.shape else jax.lax.dynamic_update_slice_in_dim(whole, block, start, axis=1)


def _dot(pattern: str, x: Array, y: Array) -> Array:
    return jnp.einsum(pattern, x, y, preferred_element_type=jnp.float32)


def _tile_key(key: jax.Array, row, column) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, row), column)


def forward(q, k, v, mask, key, rate):
    """Attention with queries that are scaled already, and what `backward` wants, last the logsumexp [b, q, h]."""
    b, queries, h, _ = q.shape
    q_size, k_size = _sizes(q, k)

    def rows(carry, row, size):
        here = _heads(q, row, size)
        seen_here = None if mask is None else _cut(mask, row, size, 2)

        def columns(state, column, width):
            top, total, out = state
            logits = _dot("bhqd,bhkd->bhqk", here, _heads(k, column, width))
            if seen_here is not None:
                logits = jnp.where(_cut(seen_here, column, width, 3), logits, -jnp.inf)
            weights, top, shrink = soften(logits, top)
            total = total * shrink + weights.sum(axis=-1)
            if key is not None:
                weights = weights * drop_weights(weights.shape, rate, _tile_key(key, row, column))
            part = _dot("bhqk,bhke->bhqe", weights.astype(v.dtype), _heads(v, column, width))
            return top, total, out * shrink[..., None] + part

        zeros = jnp.zeros((b, h, size), jnp.float32)
        begin = (zeros - jnp.inf, zeros, jnp.zeros((b, h, size, v.shape[-1]), jnp.float32))
        top, total, out = sweep(k.shape[1], k_size, columns, begin)
        safe, logsumexp = settle(top, total)
        return _put(carry[0], out / safe[..., None], row), _put(carry[1], logsumexp, row)

    begin = (jnp.zeros((b, queries, h, v.shape[-1]), v.dtype), jnp.zeros((b, queries, h), jnp.float32))
    out, logsumexp = map(checkpoint_name, sweep(queries, q_size, rows, begin), SAVED)
    return out, (q, k, v, mask, key, out, logsumexp)


def backward(rate, saved, grad):
    """Gradients of queries, keys and values, from what `forward` saved.

    Tiles lie transposed, [b, h, k, q], so that all but one product read their operands in order.
    """
    q, k, v, mask, key, out, logsumexp = saved
    q_size, k_size = _sizes(q, k)
    inner = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(axis=-1)

    def rows(carry, row, size):
        here, grad_here = _heads(q, row, size), _heads(grad, row, size)
        inner_here, top = _heads(inner, row, size)[:, :, None], _heads(logsumexp, row, size)[:, :, None]
        seen_here = None if mask is None else _cut(mask, row, size, 2)

        def columns(state, column, width):
            dq, dk, dv = state
            keys, values = _heads(k, column, width), _heads(v, column, width)
            weights = jnp.exp(_dot("bhkd,bhqd->bhkq", keys, here) - top)
            if seen_here is not None:
                weights = jnp.where(jnp.swapaxes(_cut(seen_here, column, width, 3), 2, 3), weights, 0.0)
            d_weights = _dot("bhke,bhqe->bhkq", values, grad_here)
            kept = weights
            if key is not None:
                drop = drop_weights((*here.shape[:3], width), rate, _tile_key(key, row, column))
                drop = jnp.swapaxes(drop, 2, 3)
                kept, d_weights = weights * drop, d_weights * drop
            d_logits = (weights * (d_weights - inner_here)).astype(q.dtype)
            dv_here = _dot("bhkq,bhqe->bhke", kept.astype(grad.dtype), grad_here)
            d_logits = one_at_a_time(d_logits, dv_here)
            dk_here = _dot("bhkq,bhqd->bhkd", d_logits, here)
            dq = dq + _dot("bhkq,bhkd->bhqd", one_at_a_time(d_logits, dk_here), keys)
            dk = _put(dk, _heads(dk, column, width) + dk_here, column)
            return dq, dk, _put(dv, _heads(dv, column, width) + dv_here, column)

        dq, *others = carry
        dq_here, dk, dv = sweep(k.shape[1], k_size, columns, (jnp.zeros(here.shape, jnp.float32), *others))
        return _put(dq, dq_here, row), dk, dv

    begin = (jnp.zeros_like(q), jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    dq, dk, dv = sweep(q.shape[1], q_size, rows, begin)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_tiled.defvjp(forward, backward)
