"""What a run says while it runs: JSON lines, TensorBoard files and a progress bar."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from perceiver.errors import InputError

NAME = "metrics.jsonl"
"""The file of a run's folder that has a line for each report."""


class Log:
    """Writes metrics of a run's folder; a resumed run drops what was written after its checkpoint."""

    def __init__(self, workdir: Path, start: int):
        workdir.mkdir(parents=True, exist_ok=True)
        self.path = workdir / NAME
        _truncate(self.path, start)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 closed by __exit__
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1 if start else None)

    def __enter__(self) -> "Log":
        return self

    def rewind(self, step: int) -> None:
        """Drop the lines of later steps, which a run that goes back makes again."""
        self._file.close()
        _truncate(self.path, step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 closed by __exit__

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """One line: {"step", "group", names: numbers}; group is "train", "validation" or "latents"."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, "group": group, **{n: v if math.isfinite(v) else str(v) for n, v in numbers.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in numbers.items():
            self._board.add_scalar(f"{group}/{name}", value, step)


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, oldest first; a half-written last line, as a crash leaves it, is left out.

    Raises:
        InputError: no metrics there.
    """
    path = workdir / NAME
    if not path.is_file():
        raise InputError(f"{path}: expected a training run's metrics, there are none")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _truncate(path: Path, start: int) -> None:
    if not path.is_file():
        return
    kept = [line for line in read_log(path.parent) if line["step"] <= start] if start else []
    aside = path.with_suffix(".tmp")
    aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(aside, path)


class Mean:
    """Means of device scalars between two reports, fetched only when asked for, so that steps are not waited for.

    A step says by "finite" whether it counts; the mean of that is the share of those that do. peak: FLOP/s that the
    devices reach together at best.
    """

    def __init__(self, peak: float = math.inf) -> None:
        self._kept: list[Mapping[str, Any]] = []
        self._peak, self._since = peak, time.perf_counter()
        self._data, self._host, self._flops = 0.0, 0.0, 0

    def add(self, values: Mapping[str, Any], data: float = 0.0, host: float = 0.0, flops: int = 0) -> None:
        """Keep one step's metrics, its FLOPs, and the seconds spent on waiting for its batch and on starting it."""
        self._kept.append(values)
        self._data, self._host, self._flops = self._data + data, self._host + host, self._flops + flops

    def take(self, batch: int) -> dict[str, float]:
        """Means since the last call, with examples per second; starts anew.

        seconds_per_step/data: the loop waited for a batch. /host: it told the device what to do. /device: it waited for
        the device. A device that is never waited for has nothing to do at times. flops_per_second: of matrix products;
        share_of_peak: what that is of the most that the devices reach.
        """
        kept = jax.device_get(self._kept)
        counted = [values for values in kept if values["finite"]] or kept
        means = {name: float(np.mean([values[name] for values in counted])) for name in kept[-1]}
        means["finite"] = float(np.mean([values["finite"] for values in kept]))
        now, steps = time.perf_counter(), len(kept)
        means["examples_per_second"] = steps * batch / (now - self._since)
        means["seconds_per_step/data"], means["seconds_per_step/host"] = self._data / steps, self._host / steps
        means["seconds_per_step/device"] = max(now - self._since - self._data - self._host, 0.0) / steps
        means["flops_per_second"] = self._flops / (now - self._since)
        means["share_of_peak"] = means["flops_per_second"] / self._peak
        self._kept, self._since, self._data, self._host, self._flops = [], now, 0.0, 0.0, 0
        return means

    def pause(self) -> "_Pause":
        """Time that does not count as training, such as an evaluation."""
        return _Pause(self)

    def skip(self, seconds: float) -> None:
        """Leave `seconds` out of the rate."""
        self._since += seconds


class _Pause:
    def __init__(self, mean: Mean):
        self._mean = mean

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._mean.skip(time.perf_counter() - self._start)


class Bar:
    """Progress with loss, examples per second and time left; plain lines where the output is not a terminal.

    quiet: show nothing.
    """

    def __init__(self, title: str, steps: int, done: int, quiet: bool = False):
        self._console = Console(stderr=True, quiet=quiet)
        self._title, self._steps = title, steps
        self._printed = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]} · {task.fields[rate]} examples/s · left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: TaskID = self._progress.add_task(title, total=steps, completed=done, loss="–", rate="–")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """One step done."""
        self._progress.advance(self._task)

    def rewind(self, step: int) -> None:
        """Back to an earlier step."""
        self._progress.update(self._task, completed=step)

    def show(self, step: int, means: Mapping[str, float]) -> None:
        """New means of the training metrics."""
        loss, rate = f"{means['loss']:.4f}", f"{means['examples_per_second']:.0f}"
        self._progress.update(self._task, loss=loss, rate=rate)
        if not self._console.is_terminal and time.monotonic() - self._printed > 10:
            self._printed = time.monotonic()
            self.say(f"{self._title}: step {step}/{self._steps}, loss {loss}, {rate} examples/s")

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)
