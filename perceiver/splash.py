"""Attention by JAX's splash kernel for TPUs, for masks that hide the same keys from every query of a sample.

The kernel wants queries, keys and widths in multiples of 128, ids instead of a mask, and no query without a key; all of
that is arranged here. On other machines it runs in Pallas' interpreter, which is slow and there for the tests.
"""

import math

import jax
import jax.numpy as jnp

from perceiver.tiles import SAVED
from perceiver.typing import Array, Bool, Float

LANES = 128
"""What the kernel's sizes are multiples of."""

BLOCK = 512
"""Most queries and keys of one block; its float32 logits take 1 MiB of the 16 that the kernel may have."""


def attend_with_splash(
    q: Float[Array, "b q h d"],
    k: Float[Array, "b k h d"],
    v: Float[Array, "b k h e"],
    mask: Bool[Array, "#b 1 1 k"] | None,
) -> Float[Array, "b q h e"]:
    """Softmax attention; zeros where a sample has no key."""
    # Imported where it is used: Pallas takes half a second to import.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    (batch, queries, heads, width), keys = q.shape, k.shape[1]
    block_q, block_k = _block(queries), _block(keys)
    open_keys = jnp.ones((batch, keys), bool) if mask is None else jnp.broadcast_to(mask[:, 0, 0], (batch, keys))
    seen = open_keys.any(axis=-1, keepdims=True)
    # A padded key is 0, as a hidden one; a query is 1. Where all are hidden all are open, and the answer is dropped.
    ids = _padded(jnp.where(seen, open_keys, True).astype(jnp.int32), 1, block_k)
    run = kernel.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.FullMask((_up(queries, block_q), _up(keys, block_k)))] * heads),
        block_sizes=kernel.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_q_dq=block_q,
            block_kv_dq=block_k,
        ),
        residual_checkpoint_name=SAVED[0],
        interpret=jax.default_backend() != "tpu",
    )

    def sample(q: Array, k: Array, v: Array, ids: Array) -> Array:
        return run(q, k, v, kernel.SegmentIds(jnp.ones(q.shape[1], jnp.int32), ids))

    wide_q = _heads_first(q * jnp.asarray(1.0 / math.sqrt(width), q.dtype), block_q)
    out = jax.vmap(sample)(wide_q, _heads_first(k, block_k), _heads_first(v, block_k), ids)
    out = jnp.swapaxes(out, 1, 2)[:, :queries, :, : v.shape[-1]]
    return jnp.where(seen[:, :, None, None], out, 0)


def _block(count: int) -> int:
    """Queries or keys of a block: all of them if they are few, in whole lanes."""
    return min(BLOCK, _up(count, LANES))


def _heads_first(x: Array, size: int) -> Array:
    """[b, n, h, d] to [b, h, n', d'] with n' in whole blocks of `size` and d' in whole lanes."""
    return _padded(_padded(jnp.swapaxes(x, 1, 2), 2, size), 3, LANES)


def _padded(x: Array, axis: int, multiple: int) -> Array:
    wanted = [(0, 0)] * x.ndim
    wanted[axis] = (0, _up(x.shape[axis], multiple) - x.shape[axis])
    return jnp.pad(x, wanted)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
