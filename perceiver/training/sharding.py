"""How a training run lies on several devices: which axis of which array is cut over which axis of the mesh.

One rule by size, so that no module knows of devices: XLA puts in what has to be exchanged (GSPMD, arXiv 2105.04663).
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from perceiver.errors import ConfigError
from perceiver.layout import AXES, SEQUENCE, TENSOR

DATA, FSDP = AXES
LEAST = 2**14
"""Numbers in an array below which each device has all of it: what is small costs more to exchange than to keep."""


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis.

    data: replicas, each with its own part of the batch. fsdp: parts that parameters and optimiser states are cut into,
    and of the batch too (fully sharded data parallel, arXiv 2304.11277). tensor: parts that the linear maps are cut
    into across the other axis, so that their products are shared (arXiv 1909.08053). sequence: parts that long inputs
    of cross-attends are cut into; see `perceiver.sequence`.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def __post_init__(self) -> None:
        for name, size in dataclasses.asdict(self).items():
            if size < 1:
                raise ConfigError(f"--mesh: expected at least 1 for {name}, got {size}")

    @staticmethod
    def parse(text: str) -> "MeshShape":
        """Read "data=4,fsdp=2".

        Raises:
            ConfigError: not of that form, or an axis that there is not.
        """
        sizes: dict[str, int] = {}
        names = [field.name for field in dataclasses.fields(MeshShape)]
        for part in text.split(","):
            found = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+)\s*", part)
            if found is None or found[1] not in names or found[1] in sizes:
                raise ConfigError(
                    f"--mesh: expected each of {', '.join(names)} at most once, as in data=4,fsdp=2; got {text!r}"
                )
            sizes[found[1]] = int(found[2])
        return MeshShape(**sizes)

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return math.prod(dataclasses.astuple(self))

    def mesh(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh of these devices, of all there are unless given.

        Raises:
            ConfigError: there is another number of them.
        """
        have = jax.devices() if devices is None else devices
        if len(have) != self.devices:
            shape = " x ".join(f"{name}={size}" for name, size in dataclasses.asdict(self).items())
            raise ConfigError(f"--mesh: {shape} takes {self.devices} devices, there are {len(have)}")
        return jax.make_mesh(
            dataclasses.astuple(self), (DATA, FSDP, TENSOR, SEQUENCE), axis_types=(AxisType.Auto,) * 4, devices=have
        )


def partition(shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """How an array of a state is cut: of its last two axes the longer over `fsdp`, the other over `tensor`, where they
    divide; axes before those count layers and stay whole. Small arrays and vectors stay whole.
    """
    if len(shape) < 2 or math.prod(shape) < LEAST:
        return PartitionSpec()
    last, before = len(shape) - 1, len(shape) - 2
    longer, other = (before, last) if shape[before] > shape[last] else (last, before)
    axes: list[str | None] = [None] * len(shape)
    for axis, name in ((longer, FSDP), (other, TENSOR)):
        if shape[axis] % mesh.shape[name] == 0 and mesh.shape[name] > 1:
            axes[axis] = name
    return PartitionSpec(*axes)


def laid_out(shapes: Any, mesh: Mesh) -> Any:
    """The shapes of a state's arrays with the sharding of each; optimisers' moments lie with their parameters, having
    their shapes.
    """

    def lies(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, partition(leaf.shape, mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(lies, shapes)


def whole(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def place(batch: Any, mesh: Mesh) -> Any:
    """A batch of host arrays on the devices, cut along its first axis over `data` and `fsdp`; each process gives its
    own samples, in the order of the processes.
    """
    cut = NamedSharding(mesh, PartitionSpec((DATA, FSDP)))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(cut, leaf), batch)


def seen_by_model(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Let what is traced meanwhile know the mesh, as attention to long inputs asks for."""
    return contextlib.nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def check_batch(batch: int, mesh: Mesh) -> None:
    """See that a batch can be cut.

    Raises:
        ConfigError: it cannot.
    """
    parts = mesh.shape[DATA] * mesh.shape[FSDP]
    if batch % parts:
        raise ConfigError(f"--mesh: a batch of {batch} cannot be cut into {parts} equal parts (data x fsdp)")
