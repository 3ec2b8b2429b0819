"""One accelerator, all figures of interest in under eight minutes: ours beside torch in bfloat16, and the card's peak.

    python -m benchmarks.accelerator                      NVIDIA, with jax[cuda13], torch and transformers installed
    python -m benchmarks.accelerator --profile trace      keeps a trace of the best training case for Perfetto
    python -m benchmarks.accelerator --tiny               a smoke test of every step on any machine, in about a minute

Every case and mode has a process for each library, with a time limit of its own. Four lanes of them run side by side,
since compiling takes most of the time and needs the processor only; a lock lets one of them at a time use the card for
anything that is timed, XLA's own tuning included. Fractions of peak are matmul FLOPs by formula, with nothing for
recomputation (benchmarks/counting.py), over the fastest bfloat16 matmul that JAX or torch reached on the same card in
the same run. What no longer fits the budget is listed as skipped.

A machine without a network takes wheels along: pip download -d wheels --only-binary :all: --python-version 3.12 with
the dependencies of pyproject.toml, then pip install --no-index --find-links wheels with the same.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from benchmarks.cases import Canonical

ROOT = pathlib.Path(__file__).parent.parent
JAX, TORCH = "jax", "torch"
COMPILED, EAGER = "torch.compile", "torch eager"
"""How torch's process runs: both, one after the other."""
FORWARD, TRAINING = "forward", "training"
PEAK = "peak"
BATCHES = {
    Canonical.IMAGENET_FOURIER: 64,
    Canonical.LANGUAGE: 128,
    Canonical.IMAGENET_LEARNED: 64,
    Canonical.FLOW: 2,
}
"""For a card with 80 GB or more."""
LIMITS = {PEAK: 40.0, TRAINING: 150.0, FORWARD: 120.0}
"""Seconds of one process: imports, compilation and waiting for the card included."""
LEAST = 20.0
"""Seconds below which a process is not worth starting."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What one process measures. case: None for the peak. batch: examples a call. profile: folder of a trace."""

    library: str
    mode: str
    case: Canonical | None = None
    batch: int = 8
    tiny: bool = False
    profile: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.mode} {self.case.value if self.case else ''}".strip()

    @property
    def sides(self) -> tuple[str, ...]:
        """Rows that the process fills."""
        return (JAX,) if self.library == JAX else (EAGER,) if self.mode == PEAK else (COMPILED, EAGER)


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of one side of a task: its figures, or why there are none. flops: of one example. rate: a second."""

    task: Task
    side: str
    best: dict | None
    said: str


def lanes(tiny: bool, libraries: Sequence[str], scale: float) -> list[list[Task]]:
    """What runs one after the other in each lane, most important first."""
    batches = {case: 2 if tiny else max(round(scale * batch), 1) for case, batch in BATCHES.items()}
    return [
        [Task(library, mode, case, batch, tiny) for case, batch in batches.items()]
        for mode in (TRAINING, FORWARD)
        for library in libraries
    ]


def run(task: Task, limit: float, lock: pathlib.Path) -> list[Row]:
    """Start the process, read its lines until it ends or its time is up."""
    words = [task.library, task.mode, task.case.value if task.case else "-", str(task.batch), str(lock)]
    words += ["--tiny"] * task.tiny + (["--profile", task.profile] if task.profile else [])
    given = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONWARNINGS": "ignore"}
    given["JAX_TRACEBACK_FILTERING"] = "off"  # so that the last line says what went wrong
    command = [sys.executable, "-m", "benchmarks.accelerator_sides", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    found: dict[str, list[dict]] = {side: [] for side in task.sides}
    tail, deadline, said = "", time.monotonic() + limit, ""
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            process.kill()
            said = f"stopped after {limit:.0f} s"
            break
        if line is None:
            break
        if line.startswith("@"):
            record = json.loads(line[1:])
            if "rate" in record:
                found[record["side"]].append(record)
            said = record.get("said", said)
        elif line.strip():
            tail = line.strip()
    if process.wait() and not said:
        said = tail[:200]
    best = {side: max(records, key=lambda record: record["rate"], default=None) for side, records in found.items()}
    return [Row(task, side, best[side], said) for side in task.sides]


def _read(stream, lines: "queue.Queue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def table(rows: list[Row]) -> str:
    """Markdown, peaks first, then case by case."""
    peaks = {row.side: row.best["rate"] for row in rows if row.task.mode == PEAK and row.best}
    peak = max(peaks.values(), default=0.0)
    lines = [f"bfloat16 matmul of {side.split()[0]}: {rate / 1e12:.1f} TFLOP/s" for side, rate in peaks.items()]
    lines += ["", "| case | side | batch | ms a call | examples/s | of peak | times torch.compile | notes |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    rates = {(row.task.name, row.side): row.best["rate"] for row in rows if row.best}
    order = [f"{mode} {case.value}" for mode in (TRAINING, FORWARD) for case in BATCHES]
    for row in sorted((row for row in rows if row.task.mode != PEAK), key=lambda row: order.index(row.task.name)):
        cells = [row.task.name, row.side]
        if row.best is None:
            lines.append("| " + " | ".join([*cells, *["–"] * 5, row.said]) + " |")
            continue
        rate, other = row.best["rate"], rates.get((row.task.name, COMPILED))
        share = f"{rate * row.best['flops'] / peak:.1%}" if peak else "–"
        beside = f"{rate / other:.2f}" if other else "–"
        notes = "; ".join(note for note in (row.best.get("note", ""), row.said) if note)
        cells += [str(row.best["batch"]), f"{1e3 * row.best['seconds']:.1f}", f"{rate:.1f}", share, beside, notes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__.split("\n\n")[0])
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for everything")
    parser.add_argument("--libraries", nargs="+", default=[JAX, TORCH], choices=[JAX, TORCH])
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches; below 1 for a card with less memory")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that every step works")
    parser.add_argument("--profile", type=pathlib.Path, help="a folder for a trace of our best training case")
    parser.add_argument("--json", type=pathlib.Path, help="a file for the rows")
    given = parser.parse_args(arguments)
    ends, rows, skipped = time.monotonic() + given.budget, [], []
    with tempfile.TemporaryDirectory() as folder:
        lock, writing = pathlib.Path(folder, "lock"), threading.Lock()
        for library in given.libraries:
            rows += run(Task(library, PEAK, tiny=given.tiny), LIMITS[PEAK], lock)

        def drive(tasks: list[Task]) -> None:
            for task in tasks:
                left = ends - time.monotonic()
                if left < LEAST:
                    skipped.append(f"{task.name} ({task.library})")
                    continue
                rows.extend(run(task, min(LIMITS[task.mode], left), lock))
                if given.json is not None:
                    with writing:
                        _write(rows, skipped, given.json)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(drive, lanes(given.tiny, given.libraries, given.scale)))
        print(f"\n{table(rows)}", flush=True)
        if skipped:
            print(f"skipped, out of time: {', '.join(skipped)}", flush=True)
        if given.json is not None:
            _write(rows, skipped, given.json)
        if given.profile is not None:
            _profile(rows, given.profile, max(ends - time.monotonic(), LEAST), lock)
    return rows


def _write(rows: list[Row], skipped: list[str], path: pathlib.Path) -> None:
    plain = [{"case": row.task.name, "side": row.side, "said": row.said, **(row.best or {})} for row in rows]
    path.write_text(json.dumps({"rows": plain, "skipped": skipped}, indent=1), encoding="utf-8")


def _profile(rows: list[Row], folder: pathlib.Path, limit: float, lock: pathlib.Path) -> None:
    """Run the training case of ours that came closest to the peak once more under the profiler."""
    ours = [(row.task, row.best) for row in rows if row.side == JAX and row.task.mode == TRAINING and row.best]
    if not ours:
        return
    task, _ = max(ours, key=lambda one: one[1]["rate"] * one[1]["flops"])
    again = dataclasses.replace(task, profile=str(folder.resolve()))
    said = run(again, limit, lock)[0].said
    print(f"\ntrace of {again.name}, batch {again.batch}: {folder}. {said}", flush=True)


if __name__ == "__main__":
    main()
