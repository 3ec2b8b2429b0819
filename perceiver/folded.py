"""Attention of few queries over many tokens, without projecting the tokens.

A cross-attend computes softmax(q kᵀ / √d) v with k = x̂ Wk and v = x̂ Wv, where x̂ are the normalised tokens. For few
queries it is cheaper to carry the queries into the tokens' space instead, q kᵀ = (q Wkᵀ) x̂ᵀ, and to project what comes
back, p v = (p x̂) Wv: the long input is read as it is and neither keys, values nor normalised tokens ever exist as a
whole. Biases are exact too: a key bias adds the same to every logit of a query, which softmax ignores, and a value bias
is added once for the weights' sum. `Attention` in `perceiver.attention` does the projections.

The tokens are taken in blocks with a running softmax (Rabe and Staats, arXiv 2112.05682), and the backward pass
recomputes each block, so that memory is flat in the number of tokens. On a CPU a block is normalised when it is read.
Tensor cores want rows of aligned length: on an accelerator the tokens are normalised once, in the compute dtype, and
their channels padded with zeros, which change nothing (1.8 times faster for 261 channels on an H200, bfloat16).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from perceiver.tiles import (
    FEWEST_KEYS,
    SAVED,
    differs_by_query,
    drop_weights,
    settle,
    soften,
    span,
    sweep,
    tile_size,
)
from perceiver.typing import Array, Bool, Float

ALIGNED = 64
"""Channels of whose multiples an accelerator's matrix units take rows without copying them."""


class Settings(NamedTuple):
    """What is fixed when the program is compiled.

    epsilon: of the tokens' layer norm; None where they are normalised already. rate: dropout on the weights.
    """

    epsilon: float | None
    rate: float = 0.0


def folding_pays(queries: int, keys: int, heads: int, channels: int, qk_width: int, v_width: int) -> bool:
    """Whether fewer multiplications are needed with the projections folded; widths over all heads."""
    widths = qk_width + v_width
    folded = queries * channels * widths + 2 * heads * queries * keys * channels
    return folded < keys * channels * widths + keys * queries * widths


def attend_tokens(
    queries: Float[Array, "b q h c"],
    tokens: Float[Array, "b n c"],
    mask: Bool[Array, "#b #h #q n"] | None,
    *,
    epsilon: float,
    dropout: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[Float[Array, "b q h c"], Float[Array, "b q h"]]:
    """Weighted means of normalised tokens, and the sums of the weights; both float32.

    queries: already scaled, in the tokens' space. tokens: as they come; they are normalised here, without scale or
    bias. The sums are 1, or 0 for a query that may look at nothing, or what dropout leaves.
    """
    b, q, h, c = queries.shape
    rows = jnp.swapaxes(queries, 1, 2).reshape(b, h * q, c)
    if mask is not None and differs_by_query(mask):
        mask = jnp.broadcast_to(mask, (b, h, q, mask.shape[3])).reshape(b, h * q, -1)
    elif mask is not None:
        mask = mask[:, 0]
    rate = 0.0 if key is None else dropout
    settings = Settings(epsilon, rate)
    if jax.default_backend() != "cpu":
        rows, tokens = _aligned(rows), _aligned(normalised(tokens, epsilon)[0].astype(rows.dtype))
        settings = Settings(None, rate)
    out, total = _in_groups(rows, tokens, mask, key if rate else None, settings)
    out = out[..., :c]
    return jnp.swapaxes(out.reshape(b, h, q, c), 1, 2), jnp.swapaxes(total.reshape(b, h, q), 1, 2)


def _in_groups(rows: Array, tokens: Array, mask: Array | None, key: jax.Array | None, settings: Settings):
    """`_attend`, on a CPU for as many samples at a time as its caches hold.

    Gradients for 64 pictures of 784 pixels take a third of the time.
    """
    batch, count = rows.shape[0], group(rows.shape[0], rows.shape[1], tokens.shape[1])
    if count == batch:
        return _attend(rows, tokens, mask, key, settings)

    def cut(x: Array) -> Array:
        return x.reshape(batch // count, count, *x.shape[1:])

    masks = None if mask is None else cut(jnp.broadcast_to(mask, (batch, *mask.shape[1:])))
    keys = None if key is None else jax.random.split(key, batch // count)
    out, total = jax.lax.map(lambda some: _attend(*some, settings), (cut(rows), cut(tokens), masks, keys))
    return out.reshape(batch, *out.shape[2:]), total.reshape(batch, *total.shape[2:])


def group(batch: int, rows: int, keys: int) -> int:
    """Samples to look at together: all on an accelerator, on a CPU a divisor of the batch that leaves keys enough.

    On a mesh all as well, whose devices share the batch: taking turns would bring it together again. And in exported
    programs, whose batch is any number.
    """
    if not isinstance(batch, int) or jax.default_backend() != "cpu" or not jax.sharding.get_abstract_mesh().empty:
        return batch
    most = max(tile_size() // (rows * min(keys, 2 * FEWEST_KEYS)), 1)
    return max(count for count in range(1, batch + 1) if batch % count == 0 and count <= most)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(rows: Array, tokens: Array, mask: Array | None, key: jax.Array | None, settings: Settings):
    return _forward(rows, tokens, mask, key, settings)[0]


def normalised(tokens: Array, epsilon: float) -> tuple[Array, Array]:
    """Tokens in float32, normalised, and 1 / deviation; variance in two passes as in the references."""
    centred = tokens.astype(jnp.float32)
    centred = centred - centred.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + epsilon)
    return centred * scale, scale


def _aligned(x: Array) -> Array:
    return jnp.pad(x, [(0, 0), (0, 0), (0, -x.shape[2] % ALIGNED)])


def _normed(tokens: Array, start, size: int, epsilon: float | None) -> tuple[Array, Array | None]:
    """One block of tokens, normalised, and 1 / deviation where it was not yet."""
    block = jax.lax.dynamic_slice_in_dim(tokens, start, size, axis=1)
    return (block, None) if epsilon is None else normalised(block, epsilon)


def _logits(rows: Array, block: Array, mask: Array | None, start) -> Array:
    """[b, r, size], -inf where masked."""
    logits = jnp.einsum("brc,bkc->brk", rows, block, preferred_element_type=jnp.float32)
    if mask is None:
        return logits
    return jnp.where(jax.lax.dynamic_slice_in_dim(mask, start, block.shape[1], axis=2), logits, -jnp.inf)


def _forward(rows, tokens, mask, key, settings):
    b, r, c = rows.shape

    def step(carry, start, size):
        top, total, kept, out = carry
        block = _normed(tokens, start, size, settings.epsilon)[0].astype(rows.dtype)
        logits = _logits(rows, block, mask, start)
        weights, top, shrink = soften(logits, top)
        total = total * shrink + weights.sum(axis=-1)
        if key is not None:
            weights = weights * drop_weights(weights.shape, settings.rate, jax.random.fold_in(key, start))
            kept = kept * shrink + weights.sum(axis=-1)
        part = jnp.einsum("brk,bkc->brc", weights.astype(rows.dtype), block, preferred_element_type=jnp.float32)
        return top, total, kept, out * shrink[..., None] + part

    zeros = jnp.zeros((b, r), jnp.float32)
    begin = (zeros - jnp.inf, zeros, zeros, jnp.zeros((b, r, c), jnp.float32))
    top, total, kept, out = sweep(tokens.shape[1], span(b * r, tokens.shape[1]), step, begin)
    safe, logsumexp = settle(top, total)
    kept = (total > 0).astype(jnp.float32) if key is None else kept / safe
    out, logsumexp = map(checkpoint_name, (out / safe[..., None], logsumexp), SAVED)
    return (out, kept), (rows, tokens, mask, key, out, kept, logsumexp)


def _backward(settings, saved, grads):
    rows, tokens, mask, key, out, kept, logsumexp = saved
    d_out, d_kept = grads
    inner = (d_out * out).sum(axis=-1) + d_kept * kept
    d_rows_type = d_out.astype(rows.dtype)

    def step(carry, start, size):
        d_rows, d_tokens = carry
        normed, scale = _normed(tokens, start, size, settings.epsilon)
        block = normed.astype(rows.dtype)
        weights = jnp.exp(_logits(rows, block, mask, start) - logsumexp[..., None])
        d_weights = jnp.einsum("brc,bkc->brk", d_rows_type, block, preferred_element_type=jnp.float32)
        d_weights = d_weights + d_kept[..., None]
        dropped = weights
        if key is not None:
            drop = drop_weights(weights.shape, settings.rate, jax.random.fold_in(key, start))
            dropped, d_weights = weights * drop, d_weights * drop
        d_logits = (weights * (d_weights - inner[..., None])).astype(rows.dtype)
        d_rows = d_rows + jnp.einsum("brk,bkc->brc", d_logits, block, preferred_element_type=jnp.float32)
        d_block = jnp.einsum("brk,brc->bkc", d_logits, rows, preferred_element_type=jnp.float32)
        d_block = d_block + jnp.einsum(
            "brk,brc->bkc", dropped.astype(rows.dtype), d_rows_type, preferred_element_type=jnp.float32
        )
        if scale is not None:
            along = (d_block * normed).mean(axis=-1, keepdims=True)
            d_block = scale * (d_block - d_block.mean(axis=-1, keepdims=True) - normed * along)
        return d_rows, jax.lax.dynamic_update_slice_in_dim(d_tokens, d_block.astype(tokens.dtype), start, axis=1)

    begin = (jnp.zeros(rows.shape, jnp.float32), jnp.zeros_like(tokens))
    size = span(rows.shape[0] * rows.shape[1], tokens.shape[1])
    d_rows, d_tokens = sweep(tokens.shape[1], size, step, begin)
    return d_rows.astype(rows.dtype), d_tokens, None, None


_attend.defvjp(_forward, _backward)
