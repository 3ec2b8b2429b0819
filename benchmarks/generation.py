"""`python -m benchmarks.generation`: ids that Perceiver AR writes a second, with what it keeps and without."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from perceiver import Block, Bytes
from perceiver.adapters.text import SPECIALS
from perceiver.autoregressive import Autoregressive, AutoregressiveConfig
from perceiver.compiled import keep_programs
from perceiver.console import described, fail
from perceiver.errors import ConfigError, InputError, MissingExtraError
from perceiver.generation import Sampling, Step, write
from perceiver.model import parameter_count
from perceiver.recollection import blank, step
from perceiver.saving import dump
from perceiver.typing import Array

LENGTHS = (256, 512, 1024)
ROUNDS = 3
"""Texts that are timed; the fastest counts, as other programs only ever slow one down."""
COLUMNS = ("length", "latents", "parameters", "written", "kept_per_s", "anew_per_s", "times_faster", "same")


def generation(
    lengths: tuple[int, ...] = LENGTHS,
    channels: int = 256,
    depth: int = 6,
    share: int = 4,
    batch: int = 1,
    prompt: int = 16,
    as_json: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Ids a second, of texts that are written to the full length: once with keys and values kept, once all read anew.

    Both write the likeliest id each time, in one compiled loop; what they write is compared. Weights are random, as
    time does not hang on them.

    Examples:
        python -m benchmarks.generation
        python -m benchmarks.generation --lengths 2048 --channels 512
        python -m benchmarks.generation --json generation.json

    Args:
        lengths: Ids that a model takes; a model is made for each.
        channels: Width of the model.
        depth: Its self-attends behind the look.
        share: A model has a latent for one in so many of its ids.
        batch: Texts that are written at once; the figures are of all together.
        prompt: Ids that are given.
        as_json: Write machine and rows here.
    """
    if not lengths or min(lengths) <= prompt or prompt < 1:
        raise InputError(f"lengths: expected numbers above the prompt's {prompt}, which is at least 1, got {lengths}")
    rows = [row(config_of(length, channels, depth, share), batch, prompt) for length in sorted(set(lengths))]
    if as_json is not None:
        machine = describe(None) | {"devices": sorted({d.device_kind for d in jax.devices()}), "jax": jax.__version__}
        as_json.write_bytes(dump({"machine": machine, "rows": rows}))
    Console().print(table(rows))


def config_of(length: int, channels: int, depth: int, share: int) -> AutoregressiveConfig:
    """A model of bytes."""
    block = Block(heads=4, widening=4)
    latents = max(length // share, 1)
    return AutoregressiveConfig(Bytes(length, width=channels), latents, channels, depth, cross=block, latent=block)


def anew(model: Autoregressive) -> Step:
    """A step that keeps nothing: what is foretold behind a place by reading all that is in front of it again."""

    def logits_of(kept: Any, ids: Array, place: Array) -> tuple[Any, Array]:
        first = model.config.window(place)
        told = model(ids, first=jnp.broadcast_to(first, (len(ids),))).logits
        return kept, jax.lax.dynamic_index_in_dim(told, place - first, axis=1, keepdims=False)

    return logits_of


@functools.partial(jax.jit, static_argnames=("graph", "keeps"))
def written(graph: nnx.GraphDef, state: nnx.State, ids: Array, lengths: Array, keeps: bool) -> Array:
    """Rows of ids, filled by the likeliest; keeps: whether keys and values are kept."""
    model = nnx.merge(graph, state)
    own, kept = (functools.partial(step, model), blank(model, len(ids))) if keeps else (anew(model), ())
    return write(own, kept, ids, lengths, Sampling(0.0), jax.random.key(0), end=-1, padding=0)


def row(config: AutoregressiveConfig, batch: int, prompt: int) -> dict[str, Any]:
    """One length's figures, by the names of COLUMNS."""
    model = config.build(seed=0)
    kernel = model.logits.kernel[...]  # 0 at the start, which would write one id over and over
    model.logits.kernel[...] = 0.1 * jax.random.normal(jax.random.key(1), kernel.shape, kernel.dtype)
    length = config.text.max_length
    drawn = np.random.default_rng(0).integers(SPECIALS, config.text.vocabulary, (batch, length))
    given = jnp.asarray(drawn, jnp.int32), jnp.full(batch, prompt, jnp.int32)
    (kept, kept_seconds), (read, read_seconds) = (
        fastest(functools.partial(written, *nnx.split(model), *given, keeps=keeps)) for keeps in (True, False)
    )
    count = batch * (length - prompt)
    return {
        "length": length,
        "latents": config.latents,
        "parameters": parameter_count(model),
        "written": count,
        "kept_per_s": count / kept_seconds,
        "anew_per_s": count / read_seconds,
        "times_faster": read_seconds / kept_seconds,
        "same": float(np.mean(kept == read)),
    }


def fastest(call: Callable[[], Array]) -> tuple[np.ndarray, float]:
    """What a compiled call gives, and its seconds."""
    found, best = np.asarray(call()), np.inf  # the first compiles
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = np.asarray(call())
        best = min(best, time.perf_counter() - started)
    return found, best


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(title="Ids written a second, with keys and values kept and with all read anew")
    formats = {"kept_per_s": "{:,.1f}", "anew_per_s": "{:,.1f}", "times_faster": "{:.1f}", "same": "{:.1%}"}
    for name in COLUMNS:
        shown.add_column(name.replace("_per_s", ", ids/s").replace("_", " "), justify="right")
    for own in rows:
        shown.add_row(*[formats.get(name, "{:,}").format(own[name]) for name in COLUMNS])
    return shown


def main() -> None:
    """Run the command line."""
    try:
        keep_programs()
        description = described(generation)
        tyro.cli(generation, prog="benchmarks.generation", description=description, config=(tyro.conf.DisallowNone,))
    except (InputError, ConfigError, MissingExtraError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
