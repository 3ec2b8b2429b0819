"""Matrix products of linear maps whose two gradients are computed one after the other on a CPU.

XLA runs independent products at the same time. On a CPU each of them already uses all cores, so two at once share the
caches and wait for each other: the backward pass of a transformer layer takes 6 % longer (two cores, 512 x 1,024).
"""

from typing import Any

import jax
import jax.numpy as jnp

from perceiver.layout import within_layer
from perceiver.typing import Array, Float

LARGE = 2**18
"""Weights from which the order matters. Below, and elsewhere, products keep forward-mode derivatives."""


def one_at_a_time(x: Any, *rest: Any) -> Any:
    """`x`, but not before all of `rest` is computed."""
    return jax.lax.optimization_barrier((x, *rest))[0] if jax.default_backend() == "cpu" else x


def product(
    x: Float[Array, "*n i"], weights: Float[Array, "i o"], dimensions: Any, precision: Any = None, **options: Any
) -> Float[Array, "*n o"]:
    """For `nnx.Linear(dot_general=...)`. On a mesh the rows of a batch stay where its samples are."""
    if x.ndim < 3:
        return _chosen(x, weights, dimensions, precision, **options)
    return within_layer(_chosen(within_layer(x), weights, dimensions, precision, **options))


def _chosen(x: Array, weights: Array, dimensions: Any, precision: Any, **options: Any) -> Array:
    last = (((x.ndim - 1,), (0,)), ((), ()))
    plain = precision is None and not any(options.values()) and tuple(dimensions) == last and weights.ndim == 2
    if plain and weights.size >= LARGE and x.dtype == weights.dtype and jax.default_backend() == "cpu":
        return _product(x, weights)
    return jax.lax.dot_general(x, weights, dimensions, precision=precision, **options)


@jax.custom_vjp
def _product(x: Array, weights: Array) -> Array:
    return jnp.matmul(x, weights)


def _forward(x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return jnp.matmul(x, weights), (x, weights)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, weights = saved
    dx = jnp.einsum("...o,io->...i", grad, weights)
    d_weights = jnp.einsum("...i,...o->io", x, one_at_a_time(grad, dx))
    return one_at_a_time(dx, d_weights), d_weights


_product.defvjp(_forward, _backward)
