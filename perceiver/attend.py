"""Softmax attention: one function, several ways to compute it, one place that chooses.

All take queries [b, q, h, d], keys [b, k, h, d] and values [b, k, h, e] and give [b, q, h, e]. The mask is bool and
broadcasts to [b, h, q, k], True = may attend. A query with no key to attend to gives zeros.
"""

import enum
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from perceiver.errors import InputError
from perceiver.folded import folding_pays
from perceiver.sequence import FEWEST, attend_over_parts, parts
from perceiver.splash import attend_with_splash
from perceiver.tiles import attend_in_tiles, differs_by_query, drop_weights
from perceiver.typing import Array, Bool, Float

CPU_LOGITS = 2**20
"""Logits (batch x heads x queries x keys) above which a CPU attends in tiles: 4 MiB in float32, about its caches."""

DEVICE_LOGITS = 2**24
"""The same for an accelerator, which would hold too much at once: 64 MiB in float32."""


CUDNN_TILE = 64
"""Rows of one tile of cuDNN's kernel. With fewer it has nothing to gain, and with 5 queries it erred in a test."""


class Backend(enum.Enum):
    """How attention is computed."""

    XLA = "whole logits, fused by XLA"
    TILED = "tiles of queries and keys with a running softmax, recomputed in the backward pass"
    FOLDED = "projections folded into the queries, blocks of tokens with a running softmax, recomputed"
    CUDNN = "cuDNN's fused kernel"
    SPLASH = "JAX's splash kernel for TPUs"
    PARTS = "each device its part of the keys, in tiles; put together by their logsumexps"


class Problem(NamedTuple):
    """What the choice of a backend depends on.

    qk_width, v_width: of one head. channels: of the tokens that keys and values are projected from, where the
    projections may be folded into the queries; None where keys and values are given. by_query: whether the mask hides
    other keys from one query, or one head, than from the next.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    qk_width: int
    v_width: int
    dtype: jnp.dtype
    dropout: float = 0.0
    channels: int | None = None
    by_query: bool = False


def choose_backend(problem: Problem, platform: str | None = None) -> Backend:
    """The backend for a problem on a platform ("cpu", "gpu", "tpu"; default: the present one).

    cuDNN takes half precision without dropout and heads of up to 128 channels (256 from Hopper on), which are padded to
    a multiple of 8, where queries and keys fill at least one of its tiles each.
    Before all others, many keys are cut over the axis `sequence` of the mesh, where there is one.
    Splash is taken for bfloat16 without dropout and heads of up to 256 channels, which are padded to a multiple of 128,
    where there are logits enough for tiles and one mask for all queries.
    """
    heads, widths = problem.heads, (problem.qk_width * problem.heads, problem.v_width * problem.heads)
    channels = problem.channels
    folded = channels is not None and folding_pays(problem.queries, problem.keys, heads, channels, *widths)
    if not isinstance(problem.batch, int):  # a program that is exported, for any number on any platform
        return Backend.FOLDED if folded else Backend.XLA
    platform = jax.default_backend() if platform is None else platform
    if parts() > 1 and problem.keys >= FEWEST and problem.keys % parts() == 0:
        return Backend.PARTS
    half = problem.dtype in (jnp.bfloat16, jnp.float16)
    width, logits = max(problem.qk_width, problem.v_width), math.prod(problem[:4])
    enough = min(problem.queries, problem.keys) >= CUDNN_TILE
    if platform == "gpu" and half and enough and width <= _cudnn_width() and not problem.dropout:
        return Backend.CUDNN
    plain = problem.dtype == jnp.bfloat16 and not problem.dropout and not problem.by_query
    if platform == "tpu" and plain and width <= 256 and logits > DEVICE_LOGITS:
        return Backend.SPLASH
    if folded:
        return Backend.FOLDED
    return Backend.TILED if logits > (CPU_LOGITS if platform == "cpu" else DEVICE_LOGITS) else Backend.XLA


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
        InputError: shapes that do not belong together, or a backend that cannot do what is asked.
    """
    _check(q, k, v, mask)
    rate = dropout if key is not None else 0.0
    if backend is None:
        shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1], q.shape[3], v.shape[3])
        backend = choose_backend(Problem(*shape, q.dtype, rate, by_query=differs_by_query(mask)))
    if backend is Backend.CUDNN:
        return _cudnn(q, k, v, mask)
    if backend is Backend.TILED:
        return attend_in_tiles(q, k, v, mask, key if rate else None, rate)
    if backend is Backend.SPLASH:
        if rate or differs_by_query(mask):
            raise InputError("splash attention has neither dropout nor masks that differ from query to query")
        return attend_with_splash(q, k, v, mask)
    if backend is Backend.PARTS:
        return attend_over_parts(q, k, v, mask, key if rate else None, rate)
    if backend is Backend.FOLDED:
        raise InputError("keys and values are projected already: nothing is left to fold; see perceiver.folded")
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


def _whole(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    weights = attention_weights(q, k, mask)
    if key is not None:
        weights = weights * drop_weights(weights.shape, rate, key)
    return jnp.einsum("bhqk,bkhe->bqhe", weights.astype(v.dtype), v)


def _cudnn_width() -> int:
    """Channels of a head that cuDNN's kernel takes on the present device, or on Hopper where that is no GPU."""
    capability = getattr(jax.devices()[0], "compute_capability", "9.0")
    return 256 if tuple(map(int, capability.split("."))) >= (9, 0) else 128


def _cudnn(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """Heads are padded with zeros to one width that the kernel takes, which changes neither logits nor values.

    It wants a mask for every query, and even numbers of queries and keys: what is added hides from the others.
    """
    (count, keys), width = (q.shape[1], k.shape[1]), -(-max(q.shape[-1], v.shape[-1]) // 8) * 8
    odd = (count % 2, keys % 2)
    wide_q, wide_k, wide_v = (
        jnp.pad(x, [(0, 0), (0, more), (0, 0), (0, width - x.shape[-1])])
        for x, more in ((q, odd[0]), (k, odd[1]), (v, odd[1]))
    )
    every = mask if mask is not None or not any(odd) else jnp.ones((q.shape[0], 1, 1, keys), bool)
    if every is not None:
        every = jnp.broadcast_to(every, (*every.shape[:2], count, keys))
        every = jnp.pad(every, [(0, 0), (0, 0), (0, odd[0]), (0, odd[1])])
    scale = 1.0 / math.sqrt(q.shape[-1])
    out = jax.nn.dot_product_attention(wide_q, wide_k, wide_v, mask=every, scale=scale, implementation="cudnn")
    out = out[:, :count, :, : v.shape[-1]]
    if mask is None:
        return out
    seen = jnp.moveaxis(mask.any(axis=-1), 1, 2)  # cuDNN averages over all keys where none may be seen
    return jnp.where(seen[..., None], out, 0)
