"""Tables between a checkpoint's names and ours: checkpoint key → parameter path + transform, read in both directions.

A parameter path is dotted, as in `perceiver.saving.flatten`. Layers that we keep stacked along a first axis have one
key each in a checkpoint; such a row has a tuple of keys.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from perceiver.errors import InputError
from perceiver.model import ModelConfig
from perceiver.saving import weights, with_weights


class Transform(NamedTuple):
    """How one array of a checkpoint becomes ours, and back. Both only move numbers, they change none."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


LARGEST = 2**31
"""Numbers in one parameter above which a configuration is refused: no released model has as many."""

AS_IS = Transform(lambda a: a, lambda a: a)
LINEAR = Transform(lambda a: a.T, lambda a: a.T)
"""PyTorch's [out, in] to [in, out]."""
CONV = Transform(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
"""PyTorch's [out, in, h, w] to [h, w, in, out]."""
UNBATCHED = Transform(lambda a: a.reshape(a.shape[1:]), lambda a: a[None])
"""[1, ...] to [...]."""
SCALAR = Transform(lambda a: a.reshape(()), lambda a: a.reshape(1))
"""[1] to []."""
COUNT = Transform(lambda a: a.astype(np.int32), lambda a: a.astype(np.int64))
"""PyTorch's int64 counters to int32."""
CHANNELS = Transform(lambda a: a.reshape(-1), lambda a: a[None, None, None])
"""Haiku's batch-norm arrays [1, 1, 1, c] to [c]."""


def patches(patch: tuple[int, int], channels: int) -> Transform:
    """The kernel of a convolution that does not overlap, [out, c, p, q], to that of a linear map of (p q c) numbers."""
    return Transform(
        lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
        lambda a: a.reshape(*patch, channels, -1).transpose(3, 2, 0, 1),
    )


class Row(NamedTuple):
    """One line of a table.

    theirs: the checkpoint's key, or one for each stacked layer. ours: the parameter path.
    part: (i, n) where ours is the i-th of n equal parts of theirs along its first axis, before the transform.
    """

    theirs: str | tuple[str, ...]
    ours: str
    transform: Transform = AS_IS
    part: tuple[int, int] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key of the checkpoint that the row reads."""
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def row(
    theirs: str, ours: str, transform: Transform = AS_IS, layers: Sequence[str | int] | None = None, part=None
) -> Row:
    """A row; with `layers`, `theirs` has a {} that takes each of them in turn."""
    keys = theirs if layers is None else tuple(theirs.replace("{}", str(layer)) for layer in layers)
    return Row(keys, ours, transform, part)


def torch_linear(theirs: str, ours: str, layers: Sequence[str | int] | None = None, bias: bool = True) -> list[Row]:
    """nn.Linear to nnx.Linear."""
    rows = [row(f"{theirs}.weight", f"{ours}.kernel", LINEAR, layers)]
    return [*rows, row(f"{theirs}.bias", f"{ours}.bias", AS_IS, layers)] if bias else rows


def torch_norm(theirs: str, ours: str, layers: Sequence[str | int] | None = None) -> list[Row]:
    """nn.LayerNorm to nnx.LayerNorm."""
    return [
        row(f"{theirs}.weight", f"{ours}.scale", AS_IS, layers),
        row(f"{theirs}.bias", f"{ours}.bias", AS_IS, layers),
    ]


def haiku_linear(theirs: str, ours: str, layers: Sequence[str | int] | None = None) -> list[Row]:
    """hk.Linear to nnx.Linear."""
    return [row(f"{theirs}/w", f"{ours}.kernel", AS_IS, layers), row(f"{theirs}/b", f"{ours}.bias", AS_IS, layers)]


def haiku_norm(theirs: str, ours: str, layers: Sequence[str | int] | None = None) -> list[Row]:
    """hk.LayerNorm to nnx.LayerNorm."""
    return [
        row(f"{theirs}/scale", f"{ours}.scale", AS_IS, layers),
        row(f"{theirs}/offset", f"{ours}.bias", AS_IS, layers),
    ]


def read(
    rows: Sequence[Row],
    tensors: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    where: str,
    ignored: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """A checkpoint's tensors as ours.

    wanted: shape of every parameter of the model, by path. ignored: keys of a checkpoint that hold nothing learned.

    Raises:
        InputError: lists every missing, unexpected and mis-shaped entry by its name in the checkpoint, after `where`.
    """
    unmatched = wanted.keys() ^ {entry.ours for entry in rows}
    assert not unmatched, f"the table and the model disagree on {sorted(unmatched)}"
    problems = []
    known = {key for entry in rows for key in entry.keys}
    for entry in rows:
        if math.prod(wanted[entry.ours]) > LARGEST:
            raise InputError(
                f"{where}: the configuration asks for {wanted[entry.ours]} numbers in {entry.ours}: too many"
            )
        shape = _their_shape(entry, wanted[entry.ours])
        for key in entry.keys:
            if key not in tensors:
                problems.append(f"missing {key} {shape}")
            elif tensors[key].shape != shape:
                problems.append(f"{key}: expected shape {shape}, got {tensors[key].shape}")
    extra = tensors.keys() - known - set(ignored)
    problems += [f"unexpected {key} {tensors[key].shape}" for key in extra]
    if problems:
        listed = "\n  ".join(sorted(set(problems)))
        raise InputError(f"{where}: the weights do not fit the configuration:\n  {listed}")
    return {entry.ours: _read_row(entry, tensors) for entry in rows}


def build(
    config: ModelConfig,
    rows: Sequence[Row],
    tensors: Mapping[str, np.ndarray],
    where: str,
    ignored: Iterable[str] = (),
) -> Any:
    """The model of a config around a checkpoint's tensors; arguments and errors as for `read`."""
    wanted = {name: leaf.shape for name, leaf in weights(config.abstract()).items()}
    return with_weights(config, read(rows, tensors, wanted, where, ignored), where)


def write(rows: Sequence[Row], ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters under a checkpoint's names: the inverse of `read`."""
    found: dict[str, np.ndarray] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for entry in rows:
        layers = [ours[entry.ours]] if isinstance(entry.theirs, str) else list(ours[entry.ours])
        for key, array in zip(entry.keys, layers, strict=True):
            written = entry.transform.write(np.asarray(array))
            if entry.part is None:
                found[key] = written
            else:
                parts.setdefault(key, {})[entry.part[0]] = written
    joined = {key: np.concatenate([pieces[i] for i in sorted(pieces)]) for key, pieces in parts.items()}
    # Row by row in memory: safetensors writes the bytes of any other order as if they were in this one.
    return {key: np.asarray(array, order="C") for key, array in (found | joined).items()}


def _their_shape(entry: Row, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in the checkpoint of one array of a row, from our parameter's shape."""
    own = shape if isinstance(entry.theirs, str) else shape[1:]
    theirs = entry.transform.write(np.broadcast_to(np.float32(0), own)).shape
    return theirs if entry.part is None else (theirs[0] * entry.part[1], *theirs[1:])


def _read_row(entry: Row, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    arrays = [tensors[key] for key in entry.keys]
    if entry.part is not None:
        number, count = entry.part
        arrays = [np.split(array, count)[number] for array in arrays]
    read_arrays = [entry.transform.read(array) for array in arrays]
    return np.asarray(read_arrays[0] if isinstance(entry.theirs, str) else np.stack(read_arrays), order="C")
