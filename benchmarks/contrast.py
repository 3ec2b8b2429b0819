"""`python -m benchmarks.contrast`: memory of contrastive losses and their gradients, by the compiler's own analysis.

Nothing is computed: devices are parts of the processor, and batches may be larger than its memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.sharded import pretend
from perceiver.console import described

DEVICES = 8
CHUNK = 64
CHANNELS = 512
HEADER = (
    "| batch | all similarities at once | InfoNCE | each of 8 devices | sigmoid | each of 8 devices "
    f"| with a model, embedded at once | in chunks of {CHUNK} |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def contrast(batches: tuple[int, ...] = (1024, 4096, 16384, 65536), markdown: Path | None = None) -> None:
    """Memory of a contrastive loss and its gradients for batches of several sizes, MiB, beside what goes in and out.

    Args:
        batches: Pairs.
        markdown: Put the table between its markers in this file, too.
    """
    from benchmarks.report import insert

    pretend(DEVICES)
    lines = [HEADER]
    for batch in batches:
        sizes = [at_once(batch), *losses(batch), with_model(batch, None), with_model(batch, CHUNK)]
        lines.append(f"| {batch:,} | {' | '.join(f'{size / 2**20:,.0f}' for size in sizes)} |")
        Console(stderr=True).print(lines[-1], highlight=False, soft_wrap=True)
    print("\n".join(lines))
    if markdown is not None:
        insert(markdown, "\n".join(lines), "contrast")


def _used(function: Callable[..., Any], *shapes: Any) -> int:
    import jax

    analysis: Any = jax.jit(jax.grad(function, (0, 1))).lower(*shapes).compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


def _embeddings(batch: int, sharding: Any = None) -> Any:
    import jax

    return jax.ShapeDtypeStruct((batch, CHANNELS), "float32", sharding=sharding)


def at_once(batch: int) -> int:
    """InfoNCE as it is usually written down."""
    import jax
    import jax.numpy as jnp

    def loss(left: jax.Array, right: jax.Array) -> jax.Array:
        logits = 10.0 * left @ right.T
        ways = [jnp.diag(jax.nn.log_softmax(logits, axis=axis)).mean() for axis in (0, 1)]
        return -(ways[0] + ways[1]) / 2

    return _used(loss, _embeddings(batch), _embeddings(batch))


def losses(batch: int) -> list[int]:
    """Ours: InfoNCE on one device and on each of several, and so the sigmoid loss."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from perceiver.contrast import Embedded, infonce, sigmoid
    from perceiver.training.sharding import DATA, MeshShape, seen_by_model

    mesh = MeshShape(data=DEVICES).mesh()
    cut = NamedSharding(mesh, PartitionSpec(DATA))

    def pairs(left: jax.Array, right: jax.Array) -> jax.Array:
        return infonce(Embedded(left), Embedded(right), jnp.float32(2.0))

    def each(left: jax.Array, right: jax.Array) -> jax.Array:
        return sigmoid(Embedded(left), Embedded(right), jnp.float32(2.0), jnp.float32(-10.0))

    found = []
    for loss in (pairs, each):

        def on_all(left: jax.Array, right: jax.Array, loss: Callable[..., jax.Array] = loss) -> jax.Array:
            with seen_by_model(mesh):
                return loss(left, right)

        found.append(_used(loss, _embeddings(batch), _embeddings(batch)))
        found.append(_used(on_all, _embeddings(batch, cut), _embeddings(batch, cut)))
    return found


def with_model(batch: int, size: int | None) -> int:
    """InfoNCE of what a small Perceiver says of pictures and of texts, embedded at once or in chunks."""
    import jax
    from flax import nnx

    import perceiver as p
    from perceiver.contrast import Embedded, in_chunks, infonce

    config = p.PerceiverConfig(
        {"image": p.Image((64, 64, 3), patch=8, position=p.Fourier(8)), "text": p.Bytes(64, 64)},
        p.Encoder(32, 128, 4, latent=p.Block(heads=4)),
        {"embedding": p.Output(p.Embedding(CHANNELS))},
    )
    graph, state = nnx.split(config.abstract())

    def loss(state: Any, trained: jax.Array, pixels: jax.Array, ids: jax.Array) -> jax.Array:
        def embed(name: str, raw: jax.Array) -> jax.Array:
            def part(raw: jax.Array, key: jax.Array | None = None) -> jax.Array:
                return nnx.merge(graph, state)({name: raw}, outputs=["embedding"])["embedding"]

            return part(raw) if size is None else in_chunks(part, raw, size)

        return infonce(Embedded(embed("image", pixels)), Embedded(embed("text", ids)), trained)

    pixels = jax.ShapeDtypeStruct((batch, 64, 64, 3), "uint8")
    ids = jax.ShapeDtypeStruct((batch, 64), "int32")
    return _used(loss, nnx.as_pure(state), jax.ShapeDtypeStruct((), "float32"), pixels, ids)


def main() -> None:
    """Run the command line."""
    tyro.cli(contrast, prog="benchmarks.contrast", description=described(contrast), config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
