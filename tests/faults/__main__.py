"""`python -m tests.faults`: make every kind of fault many times, and show what came of it."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from perceiver.console import described
from tests.faults.processes import Result
from tests.faults.rounds import FAULTS, UnavailableError


def faults(rounds: int = 50, seed: int = 0, only: tuple[str, ...] = (), markdown: Path | None = None) -> None:
    """Kill training runs, damage their files, fill their disks, and see that what is promised is kept.

    Examples:
        python -m tests.faults
        python -m tests.faults --rounds 500 --only killed damaged

    Args:
        rounds: How often runs are killed during saves; four times as many files are damaged, and other faults, which
            take longer, are made a tenth to a fifth as often.
        seed: Of the moments and places.
        only: Faults to make; all unless given.
        markdown: Write the table here too.
    """
    unknown = sorted(set(only) - FAULTS.keys())
    if unknown:
        raise SystemExit(f"unknown fault {unknown[0]!r}; known: {', '.join(FAULTS)}")
    console, lines, failed = Console(stderr=True), [], False
    chosen = [name for name in FAULTS if not only or name in only]
    for name in track(chosen, "faults", console=console):
        make, share = FAULTS[name]
        with TemporaryDirectory() as folder:
            try:
                result = make(Path(folder), max(round(rounds * share), 1), np.random.default_rng([seed, len(name)]))
            except UnavailableError as error:
                console.print(f"{name}: not made: {error}", highlight=False)
                continue
        failed |= result.kept < result.rounds
        lines.append(row(result))
        console.print(lines[-1], *result.failures, sep="\n  ", highlight=False, markup=False)
    head = ["| fault | promise | kept | seconds |", "|---|---|--:|--:|"]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    sys.exit(int(failed))


def row(result: Result) -> str:
    """A line of the table."""
    kept = f"{result.kept} of {result.rounds}"
    return f"| {result.fault} | {result.promised} | {kept} | {result.seconds:.0f} |"


def main() -> None:
    """Run the command line."""
    tyro.cli(faults, prog="tests.faults", description=described(faults), config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
