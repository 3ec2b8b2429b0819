"""`python -m benchmarks`: measure, and write JSON, a picture and a table."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from benchmarks import rows as row_files
from benchmarks.cases import CASES, UnknownNameError, choose
from benchmarks.measure import Effort, measure
from benchmarks.process import Limits
from benchmarks.sides import PEERS, ours
from perceiver.console import fail, parse

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


def benchmarks(
    case: Repeated = (),
    peer: Repeated = (),
    json: Path | None = None,
    rounds: int | None = None,
    seconds: float = 30.0,
    threads: int | None = None,
    memory: float = 18.0,
) -> None:
    """Ours beside every peer: time, memory, and how close each comes to what the machine can do.

    Examples:
        python -m benchmarks --case forward/imagenet_fourier --peer transformers --json rows.json
        python -m benchmarks --case 'forward/*'

    Args:
        case: Name or pattern of the cases, such as 'forward/*'; may be repeated; all unless given.
        peer: Name of a peer; may be repeated; all unless given.
        json: Write the rows here; rows of an older run stay where they were not measured again.
        rounds: Turns of each side; unless given, as many as fit in --seconds, from 5 to 50.
        seconds: Time for the rounds of one case.
        threads: CPU cores for every side; all unless given.
        memory: GiB that a side may take before it counts as out of memory.
    """
    names, peers = choose(case, CASES, "case"), choose(peer, PEERS, "peer")
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    limits = Limits(threads, int(memory * 2**30))
    for name in names:
        say(f"{name}")
        sides = [ours(CASES[name])] + [PEERS[chosen].side(sys.executable) for chosen in peers]
        new = row_files.rows_of(name, CASES[name], measure(CASES[name], sides, limits, Effort(rounds, seconds), say))
        for row in new:
            if "time_ratio" in row:
                say(
                    f"  {name} / {row['peer']}: time {row['time_ratio']:.3f} ± {row['spread']:.3f} "
                    f"({row['seconds']:.4g} s / {row['peer_seconds']:.4g} s), memory {row['memory_ratio']:.2f}"
                )
        if json is not None:
            old = row_files.read(json)
            row_files.write(json, old["machine"], row_files.merged(old["rows"], new, list(CASES)))


def main() -> None:
    """Run the command line."""
    try:
        parse(benchmarks, sys.argv[1:], "benchmarks")
    except UnknownNameError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
