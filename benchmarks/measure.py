"""One case, all sides: build, memory, then rounds in which every side has its turn, in random order."""

import contextlib
import dataclasses
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cases import Case
from benchmarks.peers.contract import Variant
from benchmarks.process import Limits, Outcome, Worker, WorkerError
from benchmarks.sides import Side

TURN = 0.2
"""Seconds that a turn of short calls fills."""
SETTLED = 30.0
"""Calls shorter than this many seconds come behind an untimed one: while the other side computed, it emptied the
caches, and the system took back memory that a side in use finds again at once."""
PAUSE = 0.02
"""Seconds between turns, in which the other side's threads stop spinning."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure. rounds: turns of each side; None takes what fits in `seconds`, within bounds."""

    rounds: int | None = None
    seconds: float = 15.0

    def count(self, round_seconds: float) -> int:
        """Rounds of that length to take: at most 50, at least 5, or 3 and 2 where one takes minutes."""
        if self.rounds is not None:
            return self.rounds
        least = 5 if round_seconds < 30 else 3 if round_seconds < 120 else 2
        return max(least, min(50, math.ceil(self.seconds / round_seconds)))


@dataclasses.dataclass
class Figures:
    """A side in one of its variants.

    built, memory: what its worker said. turns: by round, the seconds of the calls of that turn; each covers the whole
    case, even where the worker ran a part of it.
    """

    side: Side
    variant: Variant
    outcome: Outcome
    text: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    built: dict[str, Any] = dataclasses.field(default_factory=dict)
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)
    turns: list[list[float]] = dataclasses.field(default_factory=list)


def measure(case: Case, sides: Sequence[Side], limits: Limits, effort: Effort, say: Callable[[str], None]):
    """Figures of every side in every variant, in the order given.

    limits.bytes holds for each worker. Nothing is run at the same time as anything else.
    """
    figures = [Figures(side, variant, Outcome.MEASURED) for side in sides for variant in side.variants]
    with contextlib.ExitStack() as stack:
        running = {}
        for number, own in enumerate(figures):
            worker = stack.enter_context(Worker(own.side.program, limits))
            if _prepare(worker, case, own, say):
                running[number] = worker
            else:
                worker.close()
        _rounds(figures, running, effort)
    return figures


def _prepare(worker: Worker, case: Case, own: Figures, say: Callable[[str], None]) -> bool:
    name = own.side.name if own.variant is Variant.PLAIN else f"{own.side.name} ({own.variant.name.lower()})"
    try:
        own.versions = worker.load()
        own.built = worker.build(case, own.variant)
        own.memory = worker.memory()
    except WorkerError as error:
        own.outcome, own.text = error.outcome, str(error)
        say(f"  {name}: {error.outcome.value}: {str(error).splitlines()[0][:200]}")
        return False
    say(
        f"  {name}: {own.memory['seconds']:.4g} s after a first call of "
        f"{own.built['first_call_seconds']:.1f} s, {own.memory['peak_bytes'] / 2**20:.0f} MiB"
    )
    return True


def _rounds(figures: Sequence[Figures], running: dict[int, Worker], effort: Effort) -> None:
    if not running:
        return
    sizes = {number: _turn(figures[number].memory["seconds"]) for number in running}
    length = sum(sum(sizes[n]) * figures[n].memory["seconds"] + PAUSE for n in running)
    order = random.Random(0)
    for _ in range(effort.count(length)):
        for number in order.sample(sorted(running), len(running)):
            time.sleep(PAUSE)
            own = figures[number]
            try:
                seconds = running[number].run(*sizes[number])
            except WorkerError as error:
                own.outcome, own.text = error.outcome, str(error)
                del running[number]
                continue
            own.turns.append([second * own.built["times"] for second in seconds])


def _turn(seconds: float) -> tuple[int, int]:
    """Untimed and timed calls of a turn."""
    return (1 if seconds < SETTLED else 0), max(1, min(100, math.ceil(TURN / seconds)))
