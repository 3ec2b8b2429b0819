"""`python -m benchmarks`: measure, and write JSON, a picture and tables."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmarks import machine as machines
from benchmarks import picture as pictures
from benchmarks import report
from benchmarks import rows as row_files
from benchmarks.cases import CASES, Forward, UnknownNameError, choose
from benchmarks.cost import cost
from benchmarks.measure import Effort, measure
from benchmarks.process import Limits, Outcome, Worker, WorkerError
from benchmarks.rows import Row
from benchmarks.sides import PEERS, Side, ours, python_of
from perceiver.console import described, fail
from perceiver.errors import ConfigError, InputError

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run measures. absent: why peers cannot be started, by name. named: the user named the peers."""

    cases: Sequence[str]
    sides: Sequence[Side]
    absent: Mapping[str, str]
    named: bool
    limits: Limits
    effort: Effort


def benchmarks(
    case: Repeated = (),
    peer: Repeated = (),
    json: Path | None = None,
    markdown: Path | None = None,
    picture: Path | None = None,
    rounds: int | None = None,
    seconds: float = 15.0,
    threads: int | None = None,
    memory: float = 18.0,
    deepmind: Path | None = None,
    python: Repeated = (),
    list_: Annotated[bool, tyro.conf.arg(name="list")] = False,
) -> None:
    """Ours beside every peer: time, memory, and how close each comes to what the machine can do.

    Examples:
        python -m benchmarks --list
        python -m benchmarks --case forward/imagenet_fourier --peer transformers --json rows.json
        python -m benchmarks --case 'forward/*' --case policy
        python -m benchmarks --json docs/performance.json --markdown docs/performance.md --picture docs/performance.png

    Args:
        case: Name or pattern of the cases, such as 'forward/*'; may be repeated; all unless given.
        peer: Name of a peer, which then has to be installed; may be repeated; all unless given.
        json: Write the rows here; rows of an older run stay where they were not measured again.
        markdown: Put the tables of all rows of --json, or of this run, between the markers of this file.
        picture: Draw those rows.
        rounds: Turns of each side; unless given, as many as fit in --seconds, from 5 (2 where they take minutes) to 50.
        seconds: Time for the rounds of one case.
        threads: CPU cores for every side; all unless given.
        memory: GiB that a side may take before it counts as out of memory.
        deepmind: A checkout of github.com/google-deepmind/deepmind-research.
        python: PEER=PATH, a peer's interpreter where it lives in another environment; may be repeated.
        list_: Say which cases and peers there are, and measure nothing.
    """
    names, peers = choose(case, CASES, "case"), choose(peer, PEERS, "peer")
    limits = Limits(threads, int(memory * 2**30))
    sides = _sides(peers, _pythons(python), deepmind)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    absent = _absent(sides, limits)
    if list_:
        _print_list(names, sides, absent)
        return
    for name in peers if peer else ():
        if name in absent:
            fail(f"the peer {name} cannot be used: {absent[name]}")
    machine = machines.describe(threads)
    old = row_files.read(json) if json is not None else {"machine": {}, "rows": []}
    if json is not None:
        row_files.check_machine(json, old["machine"], machine)
    present = [side.program for side in sides if side.name in ("transformers",) and side.name not in absent]
    machine |= machines.peaks([ours(CASES[names[0]]).program, *present], limits)
    plan = Plan(names, sides, absent, bool(peer), limits, Effort(rounds, seconds))
    every: list[Row] = list(old["rows"])
    for name in names:
        new = _rows(name, plan, machine, say)
        every = row_files.merged(every, new, list(CASES), list(PEERS))
        if json is not None:
            row_files.write(json, machine, every)
    if markdown is not None:
        report.insert(markdown, report.markdown(machine, every))
    if picture is not None:
        pictures.draw(every, picture)


def _rows(name: str, plan: Plan, machine: Mapping[str, Any], say: Say) -> list[Row]:
    """Measure one case."""
    say(name)
    case = CASES[name]
    large = isinstance(case, Forward) and case.batch > 1 and not plan.named
    running, unmeasured = [ours(case)], []
    for side in plan.sides:
        if side.name in plan.absent:
            unmeasured.append(row_files.unmeasured(side, Outcome.ABSENT, plan.absent[side.name]))
        elif large and not PEERS[side.name].batches:
            unmeasured.append(row_files.unmeasured(side, Outcome.LEFT_OUT, f"--case {name} --peer {side.name} runs it"))
        else:
            running.append(side)
    figures = [*measure(case, running, plan.limits, plan.effort, say), *unmeasured]
    rows = row_files.rows_of(name, case, figures, [peer.name for peer in PEERS.values() if not peer.same])
    best = row_files.fastest([own for own in figures if own.side.name == "ours"])
    if best.outcome is Outcome.MEASURED:
        row_files.add_cost(rows, cost(case, best.built["parameters"], row_files.numbers(best)), machine)
    for row in rows:
        if "time_ratio" in row:
            say(
                f"  {name} / {row['peer']}: time {row['time_ratio']:.3f} ± {row['spread']:.3f} "
                f"({row['seconds']:.4g} s / {row['peer_seconds']:.4g} s), memory {row['memory_ratio']:.2f}"
            )
        else:
            say(f"  {name} / {row['peer']}: {row['status']}")
    return rows


def _sides(peers: Sequence[str], pythons: Mapping[str, str], deepmind: Path | None) -> list[Side]:
    return [
        PEERS[name].side(python_of(PEERS[name], pythons), deepmind if PEERS[name].checkout else None) for name in peers
    ]


def _pythons(given: Sequence[str]) -> dict[str, str]:
    """PEER=PATH words by peer.

    Raises:
        InputError: another form, or no such interpreter.
    """
    found = {}
    for word in given:
        name, _, path = word.partition("=")
        (name,) = choose([name], PEERS, "peer")
        if not Path(path).is_file():
            raise InputError(f"--python {word}: expected PEER=PATH of an interpreter, there is no file {path!r}")
        found[name] = path
    return found


def _absent(sides: Sequence[Side], limits: Limits) -> dict[str, str]:
    """Which sides cannot be imported, and what to do about it."""
    found = {}
    for side in sides:
        try:
            with Worker(side.program, limits) as worker:
                worker.load()
        except (WorkerError, OSError) as error:
            words = str(error).strip().splitlines()
            found[side.name] = f"{words[0] if words else repr(error)}; {PEERS[side.name].advice}"
    return found


def _print_list(names: Sequence[str], sides: Sequence[Side], absent: Mapping[str, str]) -> None:
    print("cases:")
    for name in names:
        case = CASES[name]
        print(f"  {name:28} {(inspect.getdoc(type(case)) or '').split('.')[0]}")
    print("peers:")
    for side in sides:
        print(f"  {side.name:28} {absent.get(side.name, 'installed')}")


def main() -> None:
    """Run the command line."""
    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    try:
        tyro.cli(benchmarks, args=sys.argv[1:], prog="benchmarks", description=described(benchmarks), config=markers)
    except (UnknownNameError, InputError, ConfigError) as error:
        fail(str(error))


if __name__ == "__main__":
    main()
