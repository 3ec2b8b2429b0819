"""One side of a case in a process of its own: builds it, then runs it whenever the parent asks.

Started as a script by `benchmarks.process`, by whatever interpreter the peer lives in (Python 3.10 on). One JSON object
a line comes on standard input, one goes back on the pipe that was standard output; what libraries print goes to
standard error.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback
import typing
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = json.loads(sys.stdin.readline())
    # Peers are packages called `perceiver`, too, so the checkout is on the path for ours alone; `benchmarks` is found
    # where it was imported from, whatever else bears that name.
    sys.path[0] = ROOT
    importlib.import_module("benchmarks")
    sys.path[0:1] = [ROOT] if start["checkout"] else start["paths"]
    if start["threads"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: start["threads"]])
    if start["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (start["limit"], start["limit"]))
    side = Side(start["module"], start["threads"])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request["call"])(**request["arguments"])
        except Exception as error:  # whatever a peer raises is the row's business, not ours
            answer = _failure(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Side:
    """The requests that a worker answers."""

    def __init__(self, module, threads):
        self.module, self.threads = module, threads
        self.peer: typing.Any = None
        self.built: typing.Any = None
        self.baseline = 0

    def load(self):
        """Import the peer; versions by package."""
        self.peer = importlib.import_module(self.module)
        return {"versions": self.peer.load(self.threads or os.cpu_count())}

    def probe(self):
        """What the peer's library reaches on this machine: see `benchmarks.probes`."""
        return self.peer.probe()

    def build(self, case, variant):
        """Build, and run once, which compiles."""
        from benchmarks import cases
        from benchmarks.peers.contract import Variant

        _settle()
        self.baseline = resident("VmRSS")
        started = time.perf_counter()
        self.built = self.peer.build(cases.from_json(case), Variant[variant])
        first = time.perf_counter()
        shapes = self.built.shapes(self.built.run())
        return {
            "parameters": self.built.parameters,
            "shapes": shapes,
            "times": self.built.times,
            "notes": list(self.built.notes),
            "build_seconds": first - started,
            "first_call_seconds": time.perf_counter() - first,
            "first_call_peak_bytes": resident("VmHWM") - self.baseline,
        }

    def memory(self):
        """The second call, and the most memory during it: docs/performance.md says what is counted."""
        _settle()
        between = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        started = time.perf_counter()
        self.built.run()
        seconds = time.perf_counter() - started
        peak = resident("VmHWM")
        return {
            "seconds": seconds,
            "peak_bytes": peak - self.baseline,
            "idle_bytes": between - self.baseline,
            "imports_bytes": self.baseline,
            "process_peak_bytes": peak,
        }

    def run(self, untimed, timed):
        """Seconds of each of `timed` calls, after some that are not timed."""
        for _ in range(untimed):
            self.built.run()
        seconds = []
        gc.collect()
        gc.disable()
        for _ in range(timed):
            start = time.perf_counter()
            result = self.built.run()
            seconds.append(time.perf_counter() - start)
            del result
        gc.enable()
        return {"seconds": seconds}


def resident(field):
    """A field of /proc/self/status in bytes: VmRSS is what is resident now, VmHWM the most that was."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status: memory is measured on Linux only")


def _settle():
    """Give back what the allocator holds without need, on both sides alike."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _failure(error):
    kind = type(error).__name__
    text = str(error)
    memory = isinstance(error, MemoryError) or any(
        sign in text for sign in ("RESOURCE_EXHAUSTED", "not enough memory", "can't allocate memory", "Out of memory")
    )
    absent = isinstance(error, ImportError)
    return {
        "failure": "memory" if memory else "absent" if absent else "lacks" if kind == "NoSuchModelError" else "error",
        "text": text[:2000] if kind == "NoSuchModelError" else f"{kind}: {text}"[:2000],
        "traceback": traceback.format_exc()[-4000:],
    }


if __name__ == "__main__":
    main()
