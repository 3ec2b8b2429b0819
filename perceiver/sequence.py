"""Attention whose keys lie on several devices: each attends to its own, and the logsumexps put that together.

The long side of a cross-attend is cut over the axis `sequence` of the mesh that a program is compiled for, so that no
device ever has all keys and values; what is exchanged has the size of the answer. As in ring attention (arXiv
2310.01889), but with the queries everywhere, of which a latent bottleneck has few.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from perceiver import layout
from perceiver.tiles import backward, forward
from perceiver.typing import Array

AXIS = layout.SEQUENCE
FEWEST = 1024
"""Keys below which it is not worth it."""


def parts() -> int:
    """Into how many parts the present mesh cuts a sequence; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get(AXIS, 1)


def cut(tokens: Array) -> Array:
    """Tokens [b, n, c], of which each device is to have its part, and to compute no more of what they are made from."""
    free = PartitionSpec.UNCONSTRAINED
    return jax.lax.with_sharding_constraint(tokens, PartitionSpec(free, AXIS, free))


def attend_over_parts(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    """As `perceiver.attend.attend`, each device with its part of the keys, whose number the parts divide.

    Equal to the others to rounding, except that dropout draws other weights. key: None without dropout.
    """
    scale = jnp.asarray(1.0 / math.sqrt(q.shape[-1]), q.dtype)
    return _attend(q * scale, k, v, mask, key, rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q: Array, k: Array, v: Array, mask: Array | None, key: jax.Array | None, rate: float) -> Array:
    return _forward(q, k, v, mask, key, rate)[0]


ALL, CUT = PartitionSpec(), PartitionSpec(None, AXIS)


def _mapped(function: Any, inputs: tuple[Any, ...], outputs: Any) -> Any:
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, axis_names={AXIS}, check_vma=False)


def _given(mask: Array | None, key: jax.Array | None) -> tuple[Any, Any]:
    """How a mask and a key are cut."""
    return (None if mask is None else PartitionSpec(None, None, None, AXIS)), (None if key is None else ALL)


def _own(key: jax.Array | None) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def _forward(q, k, v, mask, key, rate):
    def here(q, k, v, mask, key):
        out, (*_, found) = forward(q, k, v, mask, _own(key), rate)
        found = jnp.where(jnp.isposinf(found), -jnp.inf, found)  # of a query that saw nothing here
        top = jax.lax.pmax(found, AXIS)
        weight = jnp.exp(found - jnp.where(jnp.isneginf(top), 0.0, top))
        total = jax.lax.psum(weight, AXIS)
        seen = total > 0
        safe = jnp.where(seen, total, 1.0)
        whole = jax.lax.psum(out.astype(jnp.float32) * weight[..., None], AXIS) / safe[..., None]
        return whole.astype(out.dtype), jnp.where(seen, top + jnp.log(safe), jnp.inf)

    out, logsumexp = _mapped(here, (ALL, CUT, CUT, *_given(mask, key)), (ALL, ALL))(q, k, v, mask, key)
    return out, (q, k, v, mask, key, out, logsumexp)


def _backward(rate, saved, grad):
    q, k, v, mask, key, out, logsumexp = saved

    def here(q, k, v, mask, key, out, logsumexp, grad):
        dq, dk, dv, *_ = backward(rate, (q, k, v, mask, _own(key), out, logsumexp), grad)
        return jax.lax.psum(dq, AXIS), dk, dv

    specs = (ALL, CUT, CUT, *_given(mask, key), ALL, ALL, ALL)
    dq, dk, dv = _mapped(here, specs, (ALL, CUT, CUT))(q, k, v, mask, key, out, logsumexp, grad)
    return dq, dk, dv, None, None


_attend.defvjp(_forward, _backward)
