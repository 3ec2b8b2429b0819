"""Tables about a model and its runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from rich.table import Table

from perceiver.attend import Problem, choose_backend
from perceiver.attention import Block
from perceiver.decoders.decoder import Output
from perceiver.model import Model, Perceiver, PerceiverConfig, parameter_bytes, parameter_count
from perceiver.training.figures import flat
from perceiver.training.report import spread


def describe_model(model: Model, batch: int) -> list[Table]:
    """Parts with their shapes and parameters, and the attention that runs in each."""
    if isinstance(model, Perceiver):
        return [_parts(model), _attention(model.config, batch)]
    return [_modules(model)]


def describe_runs(reports: Sequence[Mapping[str, Any]]) -> Table:
    """Test figures with mean and standard deviation over runs, beside baselines and controls."""
    title = f"{reports[0]['name']}: {len(reports)} run" + ("s, mean ± standard deviation" if len(reports) > 1 else "")
    table = Table(title=title)
    for column in ("figure", "value"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    sections = ("test", "baselines", "control", "companions")
    flattened = [flat({name: report.get(name, {}) for name in sections}) for report in reports]
    for name in flattened[0]:
        values = [figures[name] for figures in flattened if name in figures]
        table.add_row(name, spread(values))
    table.add_row("seconds", spread([float(report["seconds"]) for report in reports]))
    return table


def describe_progress(lines: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The newest figure of each name in a run's log, in readable units."""
    newest = {}
    for line in lines:
        for name in line.keys() - {"step", "group"}:
            newest[line["group"], name] = line["step"], float(line[name])
    table = Table(title=f"{title}: step {lines[-1]['step']}")
    for column in ("kind", "figure", "newest", "of step"):
        table.add_column(column, justify="left" if column in ("kind", "figure") else "right")
    for (group, name), (step, value) in sorted(newest.items()):
        table.add_row(group, name, _readable(name, value), str(step))
    return table


UNITS = {"memory_bytes": (2.0**-20, "MiB"), "flops_per_second": (1e-9, "GFLOP/s"), "seconds_per_step": (1e3, "ms")}
"""By metric: a factor and the unit that it gives."""


def _readable(name: str, value: float) -> str:
    factor, unit = UNITS.get(name.partition("/")[0], (1.0, ""))
    number = value * factor
    return f"{number:,.0f} {unit}".rstrip() if abs(number) >= 1000 else f"{number:.4g} {unit}".rstrip()


def _modules(model: Model) -> Table:
    """The parts of a model that is no Perceiver, by attribute."""
    table = Table(title=f"{type(model).__name__}: {_stored(model)}")
    for column in ("part", "kind", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name, part in sorted(vars(model).items()):
        if isinstance(part, nnx.Module):
            table.add_row(name, type(part).__name__, f"{parameter_count(part):,}")
    return table


def _parts(model: Perceiver) -> Table:
    config = model.config
    table = Table(title=f"{_stored(model)}, computing in {config.compute.value}")
    for column in ("part", "kind", "tokens × channels", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")

    def row(part: str, kind: str, shape: str, *modules: nnx.Module) -> None:
        table.add_row(part, kind, shape, f"{sum(parameter_count(module) for module in modules):,}")

    for name, adapter in config.inputs.items():
        shape = f"{adapter.tokens} × {adapter.channels}"
        row(f"input {name}", type(adapter).__name__, shape, model.adapters[name])
    row("joined", "", f"… × {config.token_channels}", model.join)
    encoder = config.encoder
    latents = f"{_choice(encoder.min_latents, encoder.latents)} × {encoder.channels}"
    depth = _choice(encoder.min_depth, encoder.depth)
    blocks = f"{len(encoder.cross_attends)} cross, {len(encoder.towers)} × {depth} self"
    row("encoder", blocks, latents, model.encoder)
    for name, trunk in config.trunks.items():
        row(f"trunk {name}", "shared by outputs", f"… × {trunk.project or trunk.channels}", model.trunks[name])
    for name, output in config.outputs.items():
        shape = "given by the caller" if output.shape is None else "×".join(map(str, output.shape)) or "1"
        asked = type(output.asked).__name__ if isinstance(output, Output) else "the latents' mean"
        kind = f"{type(output.head).__name__} of {asked}"
        row(f"output {name}", kind, shape, model.decoders[name])
    return table


def _stored(model: Model) -> str:
    return f"{parameter_count(model):,} parameters in {parameter_bytes(model):,} bytes ({model.config.weights.value})"


def _choice(least: int | None, most: int) -> str:
    """A number, or the range that `perceiver.reduced` may choose from."""
    return str(most) if least in (None, most) else f"{least}–{most}"


def _attention(config: PerceiverConfig, batch: int) -> Table:
    platform = jax.default_backend()
    table = Table(title=f"Attention on {platform}, batch {batch}")
    for column in ("where", "queries", "keys", "heads × width", "computed as"):
        table.add_column(column)

    def row(where: str, block: Block, queries: int, keys: int, key_channels: int, across: bool = True) -> None:
        qk = block.qk_channels or key_channels
        v = block.v_channels or qk
        widths = (qk // block.heads, v // block.heads)
        sizes = (batch, block.heads, queries, keys, *widths)
        dtype, channels = config.compute.dtype, key_channels if across else None
        choice = choose_backend(Problem(*sizes, dtype, block.attention_dropout, channels), platform)
        table.add_row(where, str(queries), str(keys), f"{block.heads} × {widths[0]}", choice.value)

    encoder = config.encoder
    tokens = sum(adapter.tokens for adapter in config.inputs.values())
    row("inputs → latents", encoder.cross, encoder.latents, tokens, config.token_channels)
    row("latents", encoder.latent, encoder.latents, encoder.latents, encoder.channels, across=False)
    for name, output in config.outputs.items():
        if not isinstance(output, Output):
            continue
        source = config.inputs.get(output.source or "")
        shape = output.shape
        whole = math.prod(shape) if shape is not None else 1 if source is None else source.tokens
        count = output.chunk or whole
        cross = output.cross if output.trunk is None else config.trunks[output.trunk].cross
        row(f"latents → {name}", cross, count, encoder.latents, encoder.channels)
    return table
