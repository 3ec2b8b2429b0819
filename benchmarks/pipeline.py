"""`python -m benchmarks.pipeline EXPERIMENT.py …`: whether the data pipeline keeps up with the training step."""

import inspect
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from benchmarks.machine import describe
from perceiver.compiled import keep_programs
from perceiver.console import described, fail
from perceiver.errors import ConfigError, InputError, MissingExtraError
from perceiver.pipeline import iterate
from perceiver.saving import dump
from perceiver.training.experiment import Experiment
from perceiver.training.load import load_experiment
from perceiver.training.trainer import Trainer

LEAST, WARM = 3, 6
"""Batches timed at least, and those before that do not count: more than are prepared ahead, and compilation."""
COLUMNS = {
    "experiment": "experiment",
    "batch": "batch",
    "pipeline_samples_per_second": "pipeline",
    "step_samples_per_second": "step",
    "pipeline_over_step": "pipeline / step",
    "together_samples_per_second": "together",
    "together_over_step": "together / step",
}


def pipeline(
    experiments: Positional[tuple[Path, ...]],
    root: Path | None = None,
    threads: int = 2,
    processes: int = 0,
    seconds: float = 10.0,
    as_json: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Samples per second of each experiment's data pipeline alone, of its training step alone, and of both together.

    A pipeline that gives less than the step takes holds training up. On a CPU the two also share cores, which
    "together" shows: it is training as `perceiver train` does it, without validation and checkpoints.

    Examples:
        python -m benchmarks.pipeline experiments/digits.py
        python -m benchmarks.pipeline experiments/digits.py experiments/senses.py --root data/files --json pipeline.json

    Args:
        experiments: Files of experiments, as for `perceiver train`; their options stay at their defaults.
        root: Folder of the datasets, for the experiments that take one.
        threads: Threads that prepare batches.
        processes: Processes that do so instead.
        seconds: Time for each figure; compilation comes on top.
        as_json: Write machine and rows here.
    """
    if not experiments:
        raise InputError("expected the file of an experiment, such as experiments/digits.py")
    rows = [row(build(path, root), threads, processes, seconds) for path in experiments]
    machine = {"machine": describe(None) | {"devices": sorted({d.device_kind for d in jax.devices()})}}
    if as_json is not None:
        as_json.write_bytes(dump(machine | {"rows": rows}))
    Console().print(table(rows))


def build(path: Path, root: Path | None) -> Experiment:
    """The experiment of a file with its defaults, given `root` if it takes one."""
    make = load_experiment(path)
    takes_root = "root" in inspect.signature(make).parameters
    return make(root=root) if root is not None and takes_root else make()


def row(experiment: Experiment, threads: int, processes: int, seconds: float) -> dict[str, Any]:
    """One experiment's figures, by the names of COLUMNS."""
    experiment = experiment.begun(None)
    trainer = Trainer(experiment)
    state = trainer.start()
    data = iterate(experiment.stream, threads=threads, processes=processes)
    try:
        alone = rate(lambda: next(data), seconds)
        held = next(data)
    finally:
        data.close()

    def step(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return metrics["loss"]

    taken = rate(lambda: step(held), seconds)
    data = iterate(experiment.stream, threads=threads, processes=processes)
    try:
        together = rate(lambda: step(next(data)), seconds)
    finally:
        data.close()
    pace = [experiment.batch * batches for batches in (alone, taken, together)]
    return {
        "experiment": experiment.name,
        "batch": experiment.batch,
        "threads": threads,
        "processes": processes,
        "pipeline_samples_per_second": pace[0],
        "step_samples_per_second": pace[1],
        "pipeline_over_step": pace[0] / pace[1],
        "together_samples_per_second": pace[2],
        "together_over_step": pace[2] / pace[1],
    }


def rate(call: Callable[[], Any], seconds: float) -> float:
    """Calls a second over that time, after some that do not count; what they start on the device is waited for."""
    for _ in range(WARM):
        jax.block_until_ready(call())
    started, calls = time.perf_counter(), 0
    while calls < LEAST or time.perf_counter() - started < seconds:
        answer = call()
        calls += 1
    jax.block_until_ready(answer)
    return calls / (time.perf_counter() - started)


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(title="Samples per second")
    for name, title in COLUMNS.items():
        shown.add_column(title, justify="left" if name == "experiment" else "right")
    for own in rows:
        cells = [own[name] for name in COLUMNS]
        shown.add_row(*[f"{cell:,.3g}" if isinstance(cell, float) and cell < 100 else _plain(cell) for cell in cells])
    return shown


def _plain(cell: Any) -> str:
    return f"{cell:,.0f}" if isinstance(cell, float) else str(cell)


def main() -> None:
    """Run the command line."""
    try:
        keep_programs()
        tyro.cli(
            pipeline, prog="benchmarks.pipeline", description=described(pipeline), config=(tyro.conf.DisallowNone,)
        )
    except (InputError, ConfigError, MissingExtraError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
