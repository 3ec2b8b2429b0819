"""The machine that the figures belong to: what it is, and what it reaches at best."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import Limits, Program, Worker, WorkerError


def describe(threads: int | None) -> dict[str, Any]:
    """Processor, cores, memory, system and Python, by the names that the JSON has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": cores,
        "threads": threads or cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def peaks(programs: Sequence[Program], limits: Limits) -> dict[str, float]:
    """The best that any of these sides reaches: FLOP/s of matrix products by dtype, bytes a second of a triad."""
    best: dict[str, float] = {}
    for program in programs:
        with Worker(program, limits) as worker:
            try:
                worker.load()
                found = worker.probe()
            except WorkerError:
                continue
        for name, value in found.items():
            best[name] = max(value, best.get(name, 0.0))
    names = {"float32": "matmul_flops", "bfloat16": "matmul_flops_bfloat16", "bandwidth": "bandwidth_bytes"}
    return {f"{names[name]}_per_second": value for name, value in best.items()}


def _field(path: Path, name: str) -> str:
    """The first line `name : value` of a file, or nothing."""
    if not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
