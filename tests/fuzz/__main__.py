"""`python -m tests.fuzz`: many random files for every reader, loader and parser, of which only documented errors come.

With atheris installed what comes next depends on the code that was reached before (coverage-guided, libFuzzer); else
changes are drawn at random.
"""

import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from rich.console import Console

from perceiver.console import described
from tests.fuzz.targets import TARGETS, Target, changed

MEMORY = 4 * 2**30
"""Bytes that a reader may have in its process, imports included."""
SECONDS = 20
"""That one file may take."""
LARGEST = 4096
"""Bytes of a random file, where none of those that it is made of is larger."""


def fuzz(inputs: int = 100_000, seed: int = 1, only: tuple[str, ...] = ()) -> None:
    """Random files for every reader, loader and parser.

    Examples:
        python -m tests.fuzz
        python -m tests.fuzz --inputs 1000000 --only ply pcd

    Args:
        inputs: Files for each.
        seed: Of the changes.
        only: Names of some; all unless given.
    """
    unknown = sorted(set(only) - TARGETS.keys())
    if unknown:
        raise SystemExit(f"unknown target {unknown[0]!r}; known: {', '.join(TARGETS)}")
    guided = importlib.util.find_spec("atheris") is not None
    print("| door | files | guided by coverage | seconds | refused otherwise than documented |\n|---|--:|---|--:|--:|")
    failed = False
    for name in only or TARGETS:
        started = time.perf_counter()
        with TemporaryDirectory() as folder:
            words = [sys.executable, "-m", "tests.fuzz.one", name, str(inputs), str(seed), folder]
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
        bad = ended.returncode != 0
        failed |= bad
        shown = [name, f"{inputs:,}", "yes" if guided else "no", f"{time.perf_counter() - started:.0f}", str(int(bad))]
        print(f"| {' | '.join(shown)} |", flush=True)
        if bad:
            Console(stderr=True).print((ended.stderr + ended.stdout)[-3000:], highlight=False, markup=False)
    sys.exit(int(failed))


def one(name: str, inputs: int, seed: int, folder: Path) -> None:
    """Random files for one door, in this process; the file of an undocumented error stays in the working folder."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, 4 * MEMORY))
    target = TARGETS[name]
    place = folder / f"file{target.suffix}"
    if importlib.util.find_spec("atheris") is not None:
        _guided(target, inputs, seed, folder, place)
        return
    seeds, rng = list(target.seeds().values()), np.random.default_rng(seed)
    for _ in range(inputs):
        enter(target, place, changed(seeds, rng))


def _guided(target: Target, inputs: int, seed: int, folder: Path, place: Path) -> None:
    import atheris

    start = folder / "corpus"
    start.mkdir()
    seeds = target.seeds()
    for name, content in seeds.items():
        (start / name).write_bytes(content)
    largest = max(LARGEST, *map(len, seeds.values()))
    flags = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={largest}", f"-timeout={SECONDS}", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, str(start)], lambda content: enter(target, place, content))
    atheris.Fuzz()


def enter(target: Target, place: Path, content: bytes) -> bool:
    """Whether these bytes are let in; an error that is not documented comes out."""
    place.write_bytes(content)
    try:
        target.enter(place)
    except target.documented:
        return False
    return True


def main() -> None:
    """Run the command line."""
    tyro.cli(fuzz, prog="tests.fuzz", description=described(fuzz), config=(tyro.conf.DisallowNone,))


if __name__ == "__main__":
    main()
