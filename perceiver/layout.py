"""Where a model's arrays lie on the mesh that a program is compiled for: each device has rows of its own samples."""

import math

import jax
from jax.sharding import PartitionSpec

from perceiver.typing import Array

AXES, TENSOR, SEQUENCE = ("data", "fsdp"), "tensor", "sequence"
"""Axes of a mesh: those that cut a batch, one that cuts linear maps, and one that cuts long inputs."""


def batch_axes() -> tuple[tuple[str, ...], int]:
    """The axes that cut a batch on the present mesh, and into how many parts; none and 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = () if mesh.empty else tuple(axis for axis in AXES if mesh.shape.get(axis, 1) > 1)
    return axes, math.prod(mesh.shape[axis] for axis in axes)


def by_sample(rows: Array) -> Array:
    """An array [b, …] between two layers: its first axis is cut over AXES, and nothing else of it is.

    Said where large arrays are made. Left to itself the compiler may follow how a parameter is cut, and keep all
    samples on every device. Without a mesh, on one that cuts sequences, and where its axes do not divide the batch, the
    array is left as it is. What stays open in a constraint is not left open: on a mesh with `tensor` XLA (of jaxlib
    0.10.2) then computed wrong gradients.
    """
    axes, parts = batch_axes()
    if not axes or rows.shape[0] % parts or jax.sharding.get_abstract_mesh().shape.get(SEQUENCE, 1) > 1:
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(axes))


def within_layer(rows: Array) -> Array:
    """As `by_sample`, for arrays inside a layer, which `tensor` may cut along another axis: there they are left."""
    mesh = jax.sharding.get_abstract_mesh()
    return rows if mesh.empty or mesh.shape.get(TENSOR, 1) > 1 else by_sample(rows)
