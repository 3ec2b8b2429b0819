"""`python -m benchmarks.sharded`: memory of a training step on each device of a mesh, by the compiler's own analysis.

The mesh is one of as many host devices; nothing is computed on them, so any machine will do.
"""

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from benchmarks.cases import Canonical
from perceiver.console import described

if TYPE_CHECKING:
    from perceiver.training.sharding import MeshShape

MODELS = tuple(case.value for case in Canonical)
MESHES = ("data=1", "fsdp=8", "data=8,fsdp=8", "data=8,fsdp=8,tensor=4")
HEADER = "| model | mesh | devices | parameters, MiB | optimiser, MiB | activations, MiB |\n|---|---|--:|--:|--:|--:|"


@dataclasses.dataclass(frozen=True)
class Share:
    """Bytes on each device: of parameters, of the optimiser's states, and of everything else that a step makes."""

    parameters: int
    optimizer: int
    activations: int


def sharded(
    models: tuple[str, ...] = MODELS,
    meshes: tuple[str, ...] = MESHES,
    each: int = 1,
    markdown: Path | None = None,
) -> None:
    """Memory of a training step on each device of a mesh.

    Examples:
        python -m benchmarks.sharded
        python -m benchmarks.sharded --models language --meshes fsdp=2 fsdp=256 --each 4

    Args:
        models: Canonical models.
        meshes: As for `perceiver train --mesh`.
        each: Samples of a batch for each part that it is cut into.
        markdown: Put the table between its markers in this file, too.
    """
    from benchmarks.report import insert
    from perceiver.training.sharding import MeshShape

    shapes = [MeshShape.parse(mesh) for mesh in meshes]
    pretend(max(shape.devices for shape in shapes))
    lines = [HEADER]
    for model in models:
        for mesh, shape in zip(meshes, shapes, strict=True):
            found = share(Canonical(model), shape, each)
            sizes = [f"{size / 2**20:,.1f}" for size in dataclasses.astuple(found)]
            lines.append(f"| {model} | `{mesh}` | {shape.devices} | {' | '.join(sizes)} |")
            Console(stderr=True).print(lines[-1], highlight=False, soft_wrap=True)
    text = "\n".join(lines)
    print(text)
    if markdown is not None:
        insert(markdown, text, "sharded")


def pretend(devices: int) -> None:
    """Let the processor be so many devices; before JAX looks at it."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    os.environ["JAX_PLATFORMS"] = "cpu"


def share(model: Canonical, shape: "MeshShape", each: int) -> Share:
    """Compile a training step in bfloat16 (parameters and AdamW's states in float32), and ask what it takes."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from benchmarks.accelerator_sides import arrays, config, objective
    from benchmarks.peers.ours import experiment
    from perceiver.training.sharding import DATA, FSDP
    from perceiver.training.trainer import Trainer

    mesh = shape.mesh(jax.devices()[: shape.devices])
    batch = each * shape.data * shape.fsdp
    wanted = config(model, tiny=False)
    trainer = Trainer(experiment(wanted, objective(model), batch), mesh=mesh)
    state = trainer.abstract
    assert state is not None
    cut = NamedSharding(mesh, PartitionSpec((DATA, FSDP)))
    inputs: dict[str, Any] = {
        name: jax.ShapeDtypeStruct((batch, *value.shape[1:]), value.dtype, sharding=cut)
        for name, value in arrays(wanted, 1).items()
    }
    labels = (batch, inputs["text"].shape[1]) if model is Canonical.LANGUAGE else (batch,)
    targets = {"label": jax.ShapeDtypeStruct(labels, "int32", sharding=cut)}
    compiled: Any = trainer.program(state, {"inputs": inputs, "targets": targets}).call
    return Share(_bytes(state.parameters), _bytes(state.optimizer), compiled.memory_analysis().temp_size_in_bytes)


def _bytes(tree: Any) -> int:
    """Of what one device has of each array."""
    import jax

    leaves = jax.tree.leaves(tree)
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def main() -> None:
    """Run the command line."""
    tyro.cli(sharded, prog="benchmarks.sharded", description=described(sharded), config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
