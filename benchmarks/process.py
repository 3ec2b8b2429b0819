"""The parent's end of a worker: starting it, asking it, and what its failures mean."""

import dataclasses
import enum
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, to_json
from benchmarks.peers.contract import Variant

WORKER = Path(__file__).with_name("worker.py")


class Outcome(enum.Enum):
    """What became of a side."""

    MEASURED = "measured"
    LACKS = "no such model"
    ABSENT = "not installed"
    MEMORY = "out of memory"
    LEFT_OUT = "left out unless named"
    ERROR = "failed"


class WorkerError(Exception):
    """A side that gives no figures: why, and the words of the peer."""

    def __init__(self, outcome: Outcome, text: str):
        super().__init__(text)
        self.outcome = outcome


@dataclasses.dataclass(frozen=True)
class Limits:
    """What every worker gets alike. threads: CPU cores, None for all. bytes: of data; None for no limit.

    seconds: that one answer may take.
    """

    threads: int | None = None
    bytes: int | None = None
    seconds: float = 900.0


@dataclasses.dataclass(frozen=True)
class Program:
    """How to start a side: the module of `benchmarks.peers`, its interpreter, folders for its import path.

    checkout: the checkout comes before installed packages, as for ours; for peers it is not on the path at all, since
        two of them are called `perceiver` as well.
    """

    module: str
    python: str = sys.executable
    paths: tuple[str, ...] = ()
    checkout: bool = False


class Worker:
    """A running side; use as a context manager."""

    def __init__(self, program: Program, limits: Limits):
        self.limits = limits
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # compiles in the worker, which leaves no processes behind
        if limits.threads is not None:
            environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(limits.threads)
        self._process = subprocess.Popen(
            [program.python, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            bufsize=0,
            env=environment,
            cwd=WORKER.parents[1],
        )
        start = {
            "module": program.module,
            "threads": limits.threads,
            "limit": limits.bytes,
            "paths": list(program.paths),
            "checkout": program.checkout,
        }
        self._send(start)

    def load(self) -> dict[str, str]:
        """Import the peer; versions by package."""
        return self._call("load")["versions"]

    def probe(self) -> dict[str, float]:
        """FLOP/s by dtype and bytes a second; see `probes`."""
        return self._call("probe")

    def build(self, case: Case, variant: Variant) -> dict[str, Any]:
        """Build and run once; see `worker.Side.build`. After `load`."""
        return self._call("build", case=to_json(case), variant=variant.name)

    def memory(self) -> dict[str, Any]:
        """Bytes and seconds of the second call; see `worker.Side.memory`."""
        return self._call("memory")

    def run(self, untimed: int, timed: int) -> list[float]:
        """Seconds of each timed call."""
        return self._call("run", untimed=untimed, timed=timed)["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._words):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise self._dead() from None

    def _call(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        self._send({"call": name, "arguments": arguments})
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self.limits.seconds)[0]:
            raise WorkerError(Outcome.ERROR, f"no answer within {self.limits.seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._dead()
        answer = json.loads(line)
        if "failure" in answer:
            raise WorkerError(Outcome[answer["failure"].upper()], answer["text"])
        return answer

    def _dead(self) -> WorkerError:
        code = self._process.wait()
        self._words.seek(0)
        tail = self._words.read()[-2000:].decode(errors="replace").strip()
        # Killed by the kernel, or an allocation that failed inside of C++.
        memory = code == -9 or any(sign in tail for sign in ("bad_alloc", "RESOURCE_EXHAUSTED", "allocate memory"))
        return WorkerError(Outcome.MEMORY if memory else Outcome.ERROR, f"ended with code {code}: {tail[-500:]}")
