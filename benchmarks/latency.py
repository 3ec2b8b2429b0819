"""`python -m benchmarks.latency`: how long a policy takes to answer one observation, by the number of LiDAR points."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import matplotlib
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from perceiver import Bytes, Chunk, Encoder, Output, PerceiverConfig, Points, Robot, Sensor, State
from perceiver.compiled import keep_programs
from perceiver.console import described, fail
from perceiver.control.policy import Policy
from perceiver.errors import ConfigError, InputError, MissingExtraError
from perceiver.saving import dump, weights

POINTS = (256, 1024, 4096, 16384)
LEAST = 3
"""Answers timed at least."""
COLUMNS = {"points": "points", "parameters": "parameters", "answers": "answers"} | {
    name: name.replace("_", " ") for name in ("p50_ms", "p99_ms", "max_ms")
}


def latency(
    points: tuple[int, ...] = POINTS,
    channels: int = 384,
    latents: int = 16,
    depth: int = 5,
    seconds: float = 20.0,
    as_json: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    picture: Path | None = None,
) -> None:
    """Milliseconds from an observation (state, LiDAR points, an instruction) to a chunk of actions, one at a time.

    The policy is `perceiver.control.policy.Policy`: what is timed is `infer`, from numpy to numpy, with everything that
    a control loop does. Its weights are random, as time does not hang on them. Quiet machines give honest tails.

    Examples:
        python -m benchmarks.latency
        python -m benchmarks.latency --points 4096 --seconds 60
        python -m benchmarks.latency --json latency.json --picture docs/latency.png

    Args:
        points: Numbers of points of an observation; a model is made for each.
        channels: Width of the model.
        latents: Its latents.
        depth: Its self-attends.
        seconds: Time for each number.
        as_json: Write machine and rows here.
        picture: Draw the rows here.
    """
    if not points or min(points) < 1:
        raise InputError(f"points: expected numbers of at least 1, got {points}")
    rows = [row(policy_config(count, channels, latents, depth), seconds) for count in sorted(set(points))]
    machine = describe(None) | {"devices": sorted({d.device_kind for d in jax.devices()}), "jax": jax.__version__}
    if as_json is not None:
        as_json.write_bytes(dump({"machine": machine, "rows": rows}))
    if picture is not None:
        draw(rows, f"{machine['processor']}, {machine['cores']} cores", picture)
    Console().print(table(rows))


def policy_config(points: int, channels: int, latents: int, depth: int) -> PerceiverConfig:
    """A policy with a state of 14 numbers, points with intensity, and 64 bytes of text; 16 actions of 7 dims."""
    inputs = {
        "state": State(14),
        "lidar": Points(points, (-20.0, -20.0, -2.0), (20.0, 20.0, 4.0), features=("intensity",)),
        "task": Bytes(64),
    }
    sensors = {"state": "observation.state", "lidar": "observation.points.lidar", "task": "task"}
    robot = Robot(50.0, {name: Sensor(key) for name, key in sensors.items()})
    encoder = Encoder(latents, channels, depth)
    return PerceiverConfig(inputs, encoder, {"action": Output(Chunk(16, 7))}, robot=robot)


def observations(points: int) -> list[dict[str, Any]]:
    """Some observations that differ, so that nothing is answered twice."""
    rng = np.random.default_rng(0)
    low, high = (-20, -20, -2, 0), (20, 20, 4, 1)
    return [
        {
            "observation.state": rng.normal(size=14).astype(np.float32),
            "observation.points.lidar": rng.uniform(low, high, (points, 4)).astype(np.float32),
            "task": "go to the red crate, stay left of the wall",
        }
        for _ in range(8)
    ]


def row(config: PerceiverConfig, seconds: float) -> dict[str, Any]:
    """One number of points' figures, by the names of COLUMNS."""
    model = config.build(seed=0)
    count = config.inputs["lidar"].example(1).shape[1]
    seen = observations(count)
    taken: list[float] = []
    with Policy(model) as policy:
        begun = time.perf_counter()
        while len(taken) < LEAST or time.perf_counter() - begun < seconds:
            policy.reset()
            started = time.perf_counter()
            policy.infer(seen[len(taken) % len(seen)])
            taken.append(time.perf_counter() - started)
    p50, p99 = 1e3 * np.quantile(taken, [0.5, 0.99])
    return {
        "points": count,
        "parameters": sum(array.size for array in weights(model).values()),
        "answers": len(taken),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": 1e3 * max(taken),
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(title="Milliseconds from an observation to actions")
    for title in COLUMNS.values():
        shown.add_column(title, justify="right")
    for own in rows:
        shown.add_row(*[f"{own[name]:,.1f}" if name.endswith("_ms") else f"{own[name]:,}" for name in COLUMNS])
    return shown


def draw(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Write a picture of time by number of points, of the kind that the file's ending names."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    counts = [own["points"] for own in rows]
    for name, style in (("p50_ms", "o-"), ("p99_ms", "s--")):
        axes.plot(counts, [own[name] for own in rows], style, color="black", label=name.removesuffix("_ms"))
    axes.set(xscale="log", xlabel="LiDAR points", ylabel="milliseconds", title=title, ylim=(0, None))
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.axhline(20.0, color="grey", linewidth=1, label="20 ms")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Run the command line."""
    try:
        keep_programs()
        tyro.cli(latency, prog="benchmarks.latency", description=described(latency), config=(tyro.conf.DisallowNone,))
    except (InputError, ConfigError, MissingExtraError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
