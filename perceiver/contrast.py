"""Contrastive objectives over embeddings of any number of modalities, on one device or on many.

The matrix of all similarities is never held. Rows are compared with a block of columns at a time, and the gradients
compute each block again. Where the mesh that a program is compiled for cuts the batch, each device has the rows of its
own samples. For InfoNCE it gathers the columns of all, and the gradients of those go back to where they came from; for
the sigmoid loss columns go from device to device around a ring (SigLIP, arXiv 2303.15343).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from perceiver.errors import InputError
from perceiver.layout import batch_axes
from perceiver.typing import Array, Bool, Float, Int

MAX_LOG_SCALE = math.log(100.0)
"""Where CLIP (arXiv 2103.00020) stops the temperature: logits are at most 100 times a cosine."""

LARGEST = 2**22
"""Similarities that are held at once."""

_NONE = -1e30  # the logit of what does not count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Embedded:
    """A batch as one modality says it.

    values: [n, c], of Euclidean length 1. group: int [n]; what is of the same group belongs together; None: what is at
    the same place. present: bool [n], False where a sample lacks the modality, which then counts nowhere; None: none
    does.
    """

    values: Float[Array, "n c"]
    group: Int[Array, "n"] | None = None
    present: Bool[Array, "n"] | None = None

    def side(self) -> "Side":
        """With nothing left out, and zeros for what is not there."""
        count = len(self.values)
        group = jnp.arange(count) if self.group is None else jnp.asarray(self.group)
        present = jnp.ones(count, bool) if self.present is None else jnp.asarray(self.present)
        return Side(jnp.where(present[:, None], self.values.astype(jnp.float32), 0.0), group, present)


class Side(NamedTuple):
    """See Embedded."""

    values: Float[Array, "n c"]
    group: Int[Array, "n"]
    present: Bool[Array, "n"]


Loss = Callable[[Embedded, Embedded], Float[Array, ""]]
"""Of two modalities of a batch."""


def infonce(left: Embedded, right: Embedded, log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Cross-entropy of finding the right one for each left one, and the other way; the mean (CLIP, arXiv 2103.00020).

    Where several belong together their mean counts (SupCon, 2004.11362). What has no counterpart is no question, but
    remains a wrong answer to the others. 0 where there is no pair at all.

    log_scale: logarithm of 1 / temperature; above log 100 as if it were that.
    """

    def here(left: Side, right: Side, scale: Array, axes: Sequence[str]) -> Array:
        total = jnp.float32(0.0)
        for rows, columns in ((left, right), (right, left)):
            everybody = columns if not axes else jax.tree.map(functools.partial(_gathered, axes=axes), columns)
            losses, count = _infonce_rows(rows, everybody, scale)
            total += _sum(losses, axes) / jnp.maximum(_sum(count, axes), 1)
        return total / 2

    return _on_all(here, left, right, jnp.exp(clamped(log_scale)))


def sigmoid(left: Embedded, right: Embedded, log_scale: Float[Array, ""], bias: Float[Array, ""]) -> Float[Array, ""]:
    """Each pair is one question, whether it belongs together: summed, per sample (SigLIP, arXiv 2303.15343).

    log_scale, bias: of the logits; log_scale as for `infonce`.
    """

    def here(left: Side, right: Side, trained: tuple[Array, Array], axes: Sequence[str]) -> Array:
        total = _sigmoid_rows(left, right, *trained)
        if axes:
            size = math.prod(jax.lax.axis_size(axis) for axis in axes)
            around = [(i, (i + 1) % size) for i in range(size)]

            @jax.checkpoint
            def turn(carry: tuple[Side, Array], _: None) -> tuple[tuple[Side, Array], None]:
                columns = jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, tuple(axes), around), carry[0])
                return (columns, carry[1] + _sigmoid_rows(left, columns, *trained)), None

            (_, total), _ = jax.lax.scan(turn, (right, total), None, length=size - 1)
        count = _sum(left.present.sum() + right.present.sum(), axes) / 2
        return _sum(total, axes) / jnp.maximum(count, 1)

    return _on_all(here, left, right, (jnp.exp(clamped(log_scale)), bias))


def together(
    loss: Loss, modalities: Mapping[str, Embedded], pairs: Sequence[tuple[str, str]] | None = None
) -> Float[Array, ""]:
    """Mean of a loss over pairs of modalities; over all of them unless `pairs` names some.

    Raises:
        InputError: a pair names a modality that is not there; or there are fewer than two.
    """
    chosen = list(itertools.combinations(modalities, 2)) if pairs is None else list(pairs)
    unknown = sorted({name for pair in chosen for name in pair} - set(modalities))
    if unknown or not chosen:
        what = f"got {', '.join(unknown)}" if unknown else "got none"
        raise InputError(f"pairs: expected pairs of {', '.join(modalities)}, {what}")
    return sum((loss(modalities[a], modalities[b]) for a, b in chosen), jnp.float32(0.0)) / len(chosen)


def in_chunks(
    embed: Callable[[Any, jax.Array | None], Any], inputs: Any, size: int, key: jax.Array | None = None
) -> Any:
    """What `embed(part, key)` gives for a batch, `size` samples at a time; as one call, in the memory of one part.

    The gradients embed each part again, so that only what is embedded is kept: gradient caching (GradCache, arXiv
    2101.06983), which lets a contrastive batch be larger than the memory. Parts draw their own randomness. On a mesh
    every device has its share of each part. Not for models with batch norm, whose statistics would be those of a part.

    inputs: pytree of arrays [n, …].

    Raises:
        InputError: n is no multiple of size.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    if size < 1 or count % size:
        raise InputError(f"size: expected a divisor of the batch of {count}, got {size}")
    parts = count // size
    # Sample i goes into part i modulo `parts`, so that neighbours, which share a device, are spread over the parts.
    split = jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(size, parts, *leaf.shape[1:]), 0, 1), inputs)
    keys = None if key is None else jax.random.split(key, parts)
    found = jax.lax.map(jax.checkpoint(lambda part: embed(*part)), (split, keys))
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(count, *leaf.shape[2:]), found)


@jax.custom_vjp
def clamped(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """At most MAX_LOG_SCALE. Above, gradients that lead back still pass, so that a parameter is never stuck there."""
    return jnp.minimum(log_scale, MAX_LOG_SCALE)


clamped.defvjp(
    lambda log_scale: (clamped(log_scale), log_scale),
    lambda log_scale, grad: (jnp.where((log_scale > MAX_LOG_SCALE) & (grad < 0), 0.0, grad),),
)


def _on_all(here: Callable[..., Array], left: Embedded, right: Embedded, trained: Any) -> Array:
    """Call with all rows, or on every device of the present mesh with its own."""
    sides = left.side(), right.side()
    axes, devices = batch_axes()
    if devices == 1 or any(len(side.values) % devices for side in sides):
        return here(*sides, trained, ())
    cut = PartitionSpec(axes)
    mapped = jax.shard_map(
        functools.partial(here, axes=axes),
        in_specs=(cut, cut, PartitionSpec()),
        out_specs=PartitionSpec(),
        axis_names=set(axes),
    )
    return mapped(*sides, trained)


def _gathered(leaf: Array, axes: Sequence[str]) -> Array:
    return jax.lax.all_gather(leaf, tuple(axes), tiled=True)


def _sum(value: Array, axes: Sequence[str]) -> Array:
    return jax.lax.psum(value, tuple(axes)) if axes else value


def _over_blocks(step: Callable[[Any, Side], Any], start: Any, rows: Side, columns: Side) -> Any:
    """Fold a step over the columns, a block at a time; `start` and what comes out have an entry for each row."""
    count, block = len(columns.values), max(LARGEST // max(len(rows.values), 1), 128)
    if count <= block:
        return step(start, columns)
    missing = -count % block
    padded = jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)), columns)
    blocks = jax.tree.map(lambda leaf: leaf.reshape(-1, block, *leaf.shape[1:]), padded)
    body = jax.checkpoint(lambda carry, part: (step(carry, part), None))
    return jax.lax.scan(body, start, blocks)[0]


def _similarities(rows: Side, columns: Side) -> Float[Array, "n m"]:
    return jnp.matmul(rows.values, columns.values.T, precision=jax.lax.Precision.HIGHEST)


def _infonce_rows(rows: Side, columns: Side, scale: Array) -> tuple[Array, Array]:
    """Sum of the losses of the rows that have a counterpart, and their number."""

    def look(carry: tuple[Array, Array, Array], part: Side) -> tuple[Array, Array, Array]:
        normaliser, positive, count = carry
        logits = jnp.where(part.present, scale * _similarities(rows, part), _NONE)
        same = (rows.group[:, None] == part.group) & part.present
        normaliser = jnp.logaddexp(normaliser, jax.nn.logsumexp(logits, axis=1))
        return normaliser, positive + jnp.where(same, logits, 0.0).sum(axis=1), count + same.sum(axis=1)

    zero = jnp.zeros_like(rows.values[:, 0])
    normaliser, positive, count = _over_blocks(look, (zero + _NONE, zero, zero), rows, columns)
    counted = rows.present & (count > 0)
    losses = jnp.where(counted, normaliser - positive / jnp.maximum(count, 1.0), 0.0)
    return losses.sum(), counted.sum()


def _sigmoid_rows(rows: Side, columns: Side, scale: Array, bias: Array) -> Array:
    """Sum of the losses of all pairs."""

    def look(carry: Array, part: Side) -> Array:
        logits = scale * _similarities(rows, part) + bias
        same = rows.group[:, None] == part.group
        losses = jax.nn.softplus(jnp.where(same, -logits, logits))
        return carry + jnp.where(part.present, losses, 0.0).sum(axis=1)

    losses = _over_blocks(look, jnp.zeros_like(rows.values[:, 0]), rows, columns)
    return jnp.where(rows.present, losses, 0.0).sum()
