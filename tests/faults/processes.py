"""Training runs in processes of their own, which can be killed; they start from one that has imported everything."""

import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 300.0
"""Seconds until something that should happen is given up."""

_STARTER = multiprocessing.get_context("forkserver")
_STARTER.set_forkserver_preload(["perceiver.training.report", "tests.faults.tiny", "perceiver.cli"])


def start(
    workdir: Path,
    words: Mapping[str, Any],
    *,
    jumps: bool = False,
    log: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> BaseProcess:
    """`perceiver train tests/faults/tiny.py` with these options.

    jumps: let the clock jump by hours, back or forth, once a second. log: where what it says goes; the folder with
    .log behind it unless given. variables: of its environment, beside those that there are.
    """
    options = [f"--{name.replace('_', '-')}={value}" for name, value in words.items()]
    process = _STARTER.Process(
        target=_train, args=(str(workdir), options, jumps, str(log or log_of(workdir)), dict(variables or {}))
    )
    process.start()
    return process


def _train(workdir: str, options: list[str], jumps: bool, log: str, variables: dict[str, str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.setdefault("PERCEIVER_COMPILATION_CACHE", str(Path(log).with_name("programs")))
    os.environ.update(variables)
    if jumps:
        _jumping_clock()
    from perceiver import cli
    from tests.faults.tiny import HERE

    cli.main(["train", str(HERE), "--workdir", workdir, *options])


def _jumping_clock() -> None:
    real, started = time.time, time.monotonic()
    jumps = np.random.default_rng(0).choice([-7200.0, 0.0, 3600.0], 10_000)
    time.time = lambda: real() + float(jumps[int(time.monotonic() - started)])


def log_of(workdir: Path) -> Path:
    """Where the processes of a run say what they have to."""
    return workdir.with_name(f"{workdir.name}.log")


def said(workdir: Path) -> str:
    """What the processes of a run have said."""
    return log_of(workdir).read_text(encoding="utf-8", errors="replace")


def wait_until(there: Callable[[], bool], process: BaseProcess, log: Path) -> None:
    """Until something is there, or the run is over."""
    until = time.monotonic() + PATIENCE
    while not there() and process.is_alive():
        if time.monotonic() > until:
            process.kill()
            raise TimeoutError(f"nothing for {PATIENCE} s; the run said:\n{log.read_text(errors='replace')}")
        time.sleep(0.005)


def wait_for_steps(process: BaseProcess, workdir: Path, more: int = 1, log: Path | None = None) -> None:
    """Until the run has saved so many checkpoints more than it had, or is over."""
    wanted = max(steps_of(workdir), default=0) + more
    wait_until(lambda: max(steps_of(workdir), default=0) >= wanted, process, log or log_of(workdir))


def steps_of(workdir: Path) -> list[int]:
    """Steps of the checkpoints that are in place, finished or not."""
    folder = workdir / "checkpoints"
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []


def end(process: BaseProcess, number: signal.Signals | None = None) -> int:
    """Send a signal, if any, and wait for the process; its exit code, as a shell would give it."""
    if number is not None and process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, number)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"a run did not end within {PATIENCE} s")
    return 128 - process.exitcode if process.exitcode < 0 else process.exitcode


def expect(process: BaseProcess, codes: tuple[int, ...], log: Path, number: signal.Signals | None = None) -> int:
    """As `end`; assert that the exit code is one of these."""
    code = end(process, number)
    assert code in codes, f"ended with {code}: {log.read_text(errors='replace')[-1000:]}"
    return code


def finish(workdir: Path, words: Mapping[str, Any], log: Path | None = None) -> None:
    """Run, or go on, and assert that it gets to its end."""
    expect(start(workdir, words, log=log), (0,), log or log_of(workdir))


@dataclasses.dataclass(frozen=True)
class Result:
    """One kind of fault. promised: what should come of it. rounds, kept: how often it was made, and the promise kept.

    failures: what happened instead, for the first few.
    """

    fault: str
    promised: str
    rounds: int
    kept: int
    seconds: float
    failures: tuple[str, ...] = ()
