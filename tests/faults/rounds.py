"""Each kind of fault, made again and again; what is promised is asserted every time."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from perceiver.training.checkpoints import Checkpoints
from perceiver.training.lock import held
from perceiver.training.trainer import Trainer
from tests.faults.processes import (
    Result,
    end,
    expect,
    finish,
    log_of,
    said,
    start,
    steps_of,
    wait_for_steps,
    wait_until,
)
from tests.faults.tiny import tiny

SHOWN = 3
"""Failures that are told of each fault."""


class UnavailableError(Exception):
    """This machine cannot make the fault; says why."""


def measured(fault: str, promised: str, rounds: int, attempt: Callable[[int], None]) -> Result:
    """Make a fault so often; an attempt raises AssertionError where the promise is not kept."""
    started, failures = time.perf_counter(), []
    for number in range(rounds):
        try:
            attempt(number)
        except AssertionError as error:
            failures.append(f"round {number}: {error}")
    seconds = time.perf_counter() - started
    return Result(fault, promised, rounds, rounds - len(failures), seconds, tuple(failures[:SHOWN]))


def final_state(workdir: Path, words: dict[str, Any]) -> tuple[Any, int]:
    """The newest checkpoint of a run, and its step."""
    experiment = tiny(**words)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        restored = checkpoints.restore(Trainer(experiment).start())
    assert restored is not None, "there is no checkpoint"
    return jax.tree.map(np.asarray, restored[0]), restored[2]


def whole(folder: Path, words: dict[str, Any]) -> Any:
    """The last state of the same run where nothing goes wrong."""
    workdir = folder / "whole"
    finish(workdir, words)
    return final_state(workdir, words)[0]


def same(workdir: Path, words: dict[str, Any], expected: Any) -> None:
    """Assert that a run ended in a state bit for bit."""
    state, step = final_state(workdir, words)
    assert step == words["steps"], f"ended at step {step}"
    different = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected), strict=True)
        if not np.array_equal(a, b)
    ]
    assert not different, f"{len(different)} arrays are not those of the run without a fault, such as {different[0]}"


# --- processes that end -----------------------------------------------------------------------------------------------


def killed(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """kill -9 while checkpoints are being saved, again and again in one run; then it goes on to its end."""
    words = {"steps": 5 * rounds + 10, "checkpoint_every": 1}
    workdir = folder / "killed"

    def attempt(number: int) -> None:
        process = start(workdir, words)
        wait_for_steps(process, workdir)
        time.sleep(rng.uniform(0.0, 0.2))
        expect(process, (137, 0), log_of(workdir), signal.SIGKILL)
        newest = max(steps_of(workdir))
        _, step = final_state(workdir, words)
        assert step >= newest - 1, f"step {newest} was in place, but only {step} could be used"
        if number == rounds - 1:
            finish(workdir, words)
            same(workdir, words, whole(folder, words))

    return measured(
        "kill -9 during saves",
        "at most the save under way is lost; the end is that of a run without it, bit for bit",
        rounds,
        attempt,
    )


def terminated(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """SIGTERM or SIGINT at a moment drawn at random; then the run goes on to its end."""
    words = {"steps": 300, "checkpoint_every": 1000}
    expected = whole(folder, words)

    def attempt(number: int) -> None:
        workdir = folder / f"terminated-{number}"
        chosen = (signal.SIGTERM, signal.SIGINT)[number % 2]
        process = start(workdir, words)
        wait_until((workdir / "metrics.jsonl").is_file, process, log_of(workdir))
        time.sleep(rng.uniform(0.5, 3.0))
        if expect(process, (128 + chosen, 0), log_of(workdir), chosen) != 0:  # it may have been done already
            assert len(steps_of(workdir)) == 1, "nothing was saved"
            finish(workdir, words)
        same(workdir, words, expected)
        shutil.rmtree(workdir)

    return measured(
        "SIGTERM, SIGINT",
        "exit code 143 or 130 behind the step under way, saved; the end is that of a run without it, bit for bit",
        rounds,
        attempt,
    )


def clock_jumps(folder: Path, rounds: int, _: np.random.Generator) -> Result:
    """A system clock that jumps by an hour or two, both ways, once a second."""
    words = {"steps": 100, "checkpoint_every": 10}
    expected = whole(folder, words)

    def attempt(number: int) -> None:
        workdir = folder / f"clock-{number}"
        for _ in range(20):  # a save in which the clock jumps forth may count as one that took too long
            if expect(start(workdir, words, jumps=True), (0, 4), log_of(workdir)) == 0:
                break
        same(workdir, words, expected)

    return measured(
        "clock jumps",
        "trained as without, bit for bit; a save that seems to take an hour may end the run with 4, and it goes on",
        rounds,
        attempt,
    )


def two_at_once(folder: Path, rounds: int, _: np.random.Generator) -> Result:
    """A second run on the folder of one that is at work."""
    words = {"steps": 100_000, "checkpoint_every": 1}
    workdir = folder / "two"
    process = start(workdir, words)
    wait_for_steps(process, workdir)

    def attempt(_: int) -> None:
        expect(start(workdir, words), (2,), log_of(workdir))
        assert f"at work in it, process {process.pid} on" in said(workdir), said(workdir)[-1000:]

    result = measured(
        "two runs on one folder", "the second is refused, with the first's owner and age", rounds, attempt
    )
    end(process, signal.SIGKILL)
    with held(workdir):  # a killed run holds nothing
        pass
    return result


def dead_peer(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """One of two processes that share a run is killed."""
    words = {"steps": 4000, "checkpoint_every": 20, "processes": 2}

    def attempt(number: int) -> None:
        workdir = folder / f"pair-{number}"
        shared = words | {"coordinator": f"127.0.0.1:{free_port()}"}
        pair = [start(workdir, shared | {"process": index}) for index in range(2)]
        wait_for_steps(pair[0], workdir, 2)
        time.sleep(rng.uniform(0.0, 0.5))
        killed = number % 2
        end(pair[killed], signal.SIGKILL)
        started = time.monotonic()
        code = end(pair[1 - killed])
        took = time.monotonic() - started
        assert code != 0, "the other process ended as if all were well"
        assert took < 20, f"the other process ended after {took:.0f} s"
        before = max(steps_of(workdir))
        shared = words | {"coordinator": f"127.0.0.1:{free_port()}", "stop_at": before + 40}
        pair = [start(workdir, shared | {"process": index}) for index in range(2)]
        assert [end(process) for process in pair] == [0, 0], said(workdir)[-1000:]
        assert "goes on after step" in said(workdir), said(workdir)[-1000:]

    return measured(
        "a dead peer", "the other process ends within 20 s, not with 0; started again they go on", rounds, attempt
    )


def free_port() -> int:
    """A port of this machine that nothing listens to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# --- files that are damaged ------------------------------------------------------------------------------------------


def damaged(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """One bit flipped, or the end cut off, in each file of a checkpoint in turn."""
    words = {"steps": 2, "checkpoint_every": 1}
    workdir = folder / "damaged"
    finish(workdir, words)
    intact = folder / "intact"
    shutil.copytree(workdir / "checkpoints", intact)
    files = sorted(path.relative_to(intact) for path in (intact / "2").rglob("*") if path.is_file())
    experiment = tiny(**words)
    fresh = Trainer(experiment).start()
    shutil.rmtree(workdir)

    def attempt(number: int) -> None:
        run = folder / f"damaged-{number}"
        shutil.copytree(intact, run / "checkpoints")
        path = run / "checkpoints" / files[(number // 2) % len(files)]
        content = bytearray(path.read_bytes())
        if number % 2 and content:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        else:
            content = content[: int(rng.integers(len(content)))] if content else bytearray(b"x")
        path.write_bytes(content)
        with Checkpoints(run / "checkpoints") as checkpoints:
            restored = checkpoints.restore(fresh)
        assert restored is not None, f"{path}: no step was used"
        assert restored[2] == 1, f"{path}: step {restored[2]} was used"
        shutil.rmtree(run)

    return measured(
        f"bit flips and truncation in each of {len(files)} files",
        "the damaged step is named and the one before it used",
        rounds,
        attempt,
    )


# --- disks -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A small file system in memory.

    Raises:
        UnavailableError: not on this system, or not for this user.
    """
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(
            f"a small file system cannot be mounted: {getattr(error, 'stderr', error)!r:.200}"
        ) from None
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def disk_full(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """A disk that fills up while a run saves to it; then room is made and the run goes on."""
    words = {"steps": 150, "checkpoint_every": 5, "width": 64}
    expected = whole(folder, words)

    def attempt(number: int) -> None:
        with mounted(folder / f"disk-{number}", "size=24m") as disk:
            workdir = disk / "run"
            log = folder / f"disk-{number}.log"
            process = start(workdir, words, log=log)
            wait_for_steps(process, workdir, 1 + int(rng.integers(3)), log)
            with contextlib.suppress(OSError), open(disk / "ballast", "wb") as ballast:  # closing it fails, too
                while True:
                    ballast.write(bytes(1 << 12))
                    ballast.flush()
            before = max(steps_of(workdir))
            expect(process, (4,), log)
            (disk / "ballast").unlink()
            assert "No space left on device" in log.read_text(), log.read_text()[-1000:]
            _, step = final_state(workdir, words)
            assert step >= before - words["checkpoint_every"], f"step {before} was there, but only {step} is left"
            finish(workdir, words, log)
            same(workdir, words, expected)

    return measured(
        "disk full",
        "exit code 4, which says so; earlier steps stay, and with room again the run goes on, bit for bit",
        rounds,
        attempt,
    )


def read_only(folder: Path, rounds: int, _: np.random.Generator) -> Result:
    """A folder that cannot be written to."""

    def attempt(number: int) -> None:
        with mounted(folder / f"read-only-{number}", "ro,size=1m") as disk:
            log = folder / f"read-only-{number}.log"
            expect(start(disk / "run", {"steps": 1}, log=log), (2,), log)
            assert "must be writable" in log.read_text(), log.read_text()[-1000:]

    return measured("read-only folder", "exit code 2 at once, which says so", rounds, attempt)


# --- data ------------------------------------------------------------------------------------------------------------


def nan_in_data(folder: Path, rounds: int, rng: np.random.Generator) -> Result:
    """A picture with a NaN, met once an epoch."""

    def attempt(number: int) -> None:
        words = {"steps": 30, "checkpoint_every": 30, "poisoned": 1, "seed": int(rng.integers(1000))}
        workdir = folder / f"nan-{number}"
        finish(workdir, words)
        report = json.loads((workdir / "report.json").read_text())
        assert report["training"]["nonfinite_steps"] == 6, report["training"]
        state, _ = final_state(workdir, words)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))

    return measured("NaN in a sample", "its steps are left out and counted; all parameters finite", rounds, attempt)


def all_nan(folder: Path, rounds: int, _: np.random.Generator) -> Result:
    """Nothing but NaN."""

    def attempt(number: int) -> None:
        words = {"steps": 100, "poisoned": 40}
        workdir = folder / f"all-nan-{number}"
        expect(start(workdir, words), (3,), log_of(workdir))
        found = json.loads((workdir / "nonfinite.json").read_text())
        assert found["items"], found
        assert found["gradient_norms"], found

    return measured("NaN in every sample", "exit code 3; step, samples and norms written", rounds, attempt)


def unreadable(folder: Path, rounds: int, _: np.random.Generator) -> Result:
    """Samples that cannot be read: some, and more than a run bears."""

    def attempt(number: int) -> None:
        few, many = folder / f"few-{number}", folder / f"many-{number}"
        finish(few, {"steps": 10, "unreadable": 3})
        report = json.loads((few / "report.json").read_text())
        assert report["training"]["skipped_samples"]["count"] == 3, report["training"]
        expect(start(many, {"steps": 10, "unreadable": 11}), (2,), log_of(many))
        assert "more than 10 samples are bad" in said(many), said(many)[-1000:]

    return measured("unreadable samples", "counted, named, replaced; more than 10 end the run", rounds, attempt)


Fault = Callable[[Path, int, np.random.Generator], Result]
FAULTS: dict[str, tuple[Fault, float]] = {
    "killed": (killed, 1.0),
    "terminated": (terminated, 0.2),
    "clock": (clock_jumps, 0.1),
    "two": (two_at_once, 0.2),
    "peer": (dead_peer, 0.1),
    "damaged": (damaged, 4.0),
    "disk": (disk_full, 0.2),
    "read-only": (read_only, 0.1),
    "nan": (nan_in_data, 0.1),
    "all-nan": (all_nan, 0.1),
    "unreadable": (unreadable, 0.1),
}
"""By name: what makes it, and how many times for each round asked for."""
