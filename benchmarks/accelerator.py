"""One accelerator, all figures of interest in under eight minutes: ours beside torch in bfloat16, and the card's peak.

    python -m benchmarks.accelerator                      NVIDIA, with jax[cuda13], torch and transformers installed
    python -m benchmarks.accelerator --profile trace      keeps a trace of the best training case for Perfetto
    python -m benchmarks.accelerator --tiny               a smoke test of every step on any machine, in about a minute

Each side of each case runs in a process of its own, one after the other, so that no two share the card's memory, with
a time limit of its own. Batches are doubled until memory, time or gain ends; the best by examples a second counts. The
table is printed after each process, so that a run that is cut leaves what it has; what no longer fits the budget is
listed as skipped. Fractions of peak are matmul FLOPs by formula (benchmarks/counting.py; nothing for recomputation)
over the fastest bfloat16 matmul that JAX or torch reached on the same card in the same run.

A machine without a network takes wheels along: pip download -d wheels --only-binary :all: --python-version 3.12 with
the dependencies of pyproject.toml, then pip install --no-index --find-links wheels with the same.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

from benchmarks.cases import Canonical

ROOT = pathlib.Path(__file__).parent.parent
JAX, COMPILED, EAGER = "jax", "torch.compile", "torch eager"
FORWARD, TRAINING = "forward", "training"
PEAK = "peak"
CASES = (Canonical.IMAGENET_FOURIER, Canonical.LANGUAGE, Canonical.IMAGENET_LEARNED, Canonical.FLOW)
STARTS = {Canonical.FLOW: 1}
"""The first batch; 8 elsewhere."""
LIMITS = {PEAK: 25.0, TRAINING: 50.0, FORWARD: 25.0}
"""Seconds of one process, imports and compilation included."""
LEAST = 15.0
"""Seconds below which a process is not worth starting."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What one process measures. case: None for the peak. seconds: after which no larger batch is begun."""

    side: str
    mode: str
    case: Canonical | None = None
    start: int = 8
    seconds: float = 30.0
    tiny: bool = False
    profile: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.mode} {self.case.value if self.case else ''}".strip()


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a task: the best batch, or why there is none. flops: of one example. peak: FLOP/s."""

    task: Task
    best: dict | None
    said: str


def plan(tiny: bool) -> list[Task]:
    """All tasks, most important first: the peaks, training beside torch.compile, forward, then eager torch."""
    found = [Task(side, PEAK, tiny=tiny) for side in (JAX, EAGER)]
    for sides in ((JAX, COMPILED), (EAGER,)):
        for mode in (TRAINING, FORWARD):
            for case in CASES:
                start = 2 if tiny else STARTS.get(case, 8)
                found += [Task(side, mode, case, start, tiny=tiny) for side in sides]
    return found


def run(task: Task, limit: float) -> Row:
    """Start the process, read its lines until it ends or its time is up."""
    words = [task.side, task.mode, task.case.value if task.case else "-", str(task.start), f"{0.7 * limit:.0f}"]
    words += ["--tiny"] * task.tiny + (["--profile", task.profile] if task.profile else [])
    given = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONWARNINGS": "ignore"}
    given["JAX_TRACEBACK_FILTERING"] = "off"  # so that the last line says what went wrong
    command = [sys.executable, "-m", "benchmarks.accelerator_sides", *words]
    process = subprocess.Popen(
        command, cwd=ROOT, env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    found, tail, deadline, said = [], "", time.monotonic() + limit, ""
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
            found += [record] if "rate" in record else []
            said = record.get("said", said)
        elif line.strip():
            tail = line.strip()
    if process.wait() and not said:
        said = tail[:200]
    return Row(task, max(found, key=lambda record: record["rate"], default=None), said)


def _read(stream, lines: "queue.Queue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def table(rows: list[Row]) -> str:
    """Markdown, peaks first."""
    peaks = {row.task.side: row.best["rate"] for row in rows if row.task.mode == PEAK and row.best}
    peak = max(peaks.values(), default=0.0)
    lines = [f"bfloat16 matmul of {side.split()[0]}: {rate / 1e12:.1f} TFLOP/s" for side, rate in peaks.items()]
    lines += ["", "| case | side | batch | ms a call | examples/s | of peak | times torch.compile | notes |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    rates = {(row.task.name, row.task.side): row.best["rate"] for row in rows if row.best}
    for row in rows:
        if row.task.mode == PEAK:
            continue
        cells = [row.task.name, row.task.side]
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
    parser.add_argument("--sides", nargs="+", default=[JAX, COMPILED, EAGER], choices=[JAX, COMPILED, EAGER])
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that every step works")
    parser.add_argument("--profile", type=pathlib.Path, help="folder for a trace of the best training case of ours")
    parser.add_argument("--json", type=pathlib.Path, help="file for all rows, written anew after each")
    given = parser.parse_args(arguments)
    ends, rows, skipped = time.monotonic() + given.budget, [], []
    for task in (task for task in plan(given.tiny) if task.side in given.sides):
        left = ends - time.monotonic() - (LIMITS[PEAK] if given.profile else 0.0)
        if left < LEAST:
            skipped.append(f"{task.name} ({task.side})")
            continue
        rows.append(run(task, min(LIMITS[task.mode], left)))
        _show(rows, skipped, given.json)
    if given.profile is not None:
        _profile(rows, given.profile, max(ends - time.monotonic(), LEAST))
    if skipped:
        _show(rows, skipped, given.json)
    return rows


def _show(rows: list[Row], skipped: list[str], path: pathlib.Path | None) -> None:
    print(f"\n{table(rows)}", flush=True)
    if skipped:
        print(f"skipped, out of time: {', '.join(skipped)}", flush=True)
    if path is not None:
        plain = [{"case": row.task.name, "side": row.task.side, "said": row.said, **(row.best or {})} for row in rows]
        path.write_text(json.dumps({"rows": plain, "skipped": skipped}, indent=1), encoding="utf-8")


def _profile(rows: list[Row], folder: pathlib.Path, limit: float) -> None:
    """Run the training case of ours that came closest to the peak once more under the profiler."""
    ours = [(row.task, row.best) for row in rows if row.task.side == JAX and row.task.mode == TRAINING and row.best]
    if not ours:
        return
    task, best = max(ours, key=lambda one: one[1]["rate"] * one[1]["flops"])
    again = dataclasses.replace(task, start=best["batch"], profile=str(folder.resolve()))
    said = run(again, limit).said
    print(f"\ntrace of {again.name}, batch {again.start}: {folder}. {said}", flush=True)


if __name__ == "__main__":
    main()
