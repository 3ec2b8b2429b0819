"""All families of reference cases, found in one folder.

A case is discovered by its name and built from its own configuration; nothing here knows any case.
"""

from pathlib import Path
from typing import NamedTuple

from tests.parity import deepmind, hip, huggingface, losses, perceiver_ar, resamplers, towers

FAMILIES = {
    "DeepMind": deepmind,
    "Hugging Face": huggingface,
    "towers": towers,
    "HiP": hip,
    "losses": losses,
    "resamplers": resamplers,
    "Perceiver AR": perceiver_ar,
}


class Result(NamedTuple):
    """A case, how many of its arrays were compared, and the one that is furthest off, by its share of the tolerance."""

    family: str
    case: str
    count: int
    worst: str
    error: float
    tolerance: float
    failures: tuple[str, ...]


def found(folder: Path) -> list[tuple[str, str]]:
    """(family, case) of every case in a folder."""
    return [(name, case) for name, family in FAMILIES.items() for case in family.cases(folder)]


def judge(folder: Path, family: str, case: str) -> Result:
    """Compare one case."""
    compared = list(FAMILIES[family].compare(folder, case))
    assert compared, f"{case}: nothing was compared"
    errors = [(one.error, one.tolerance, one.what) for one in compared]
    error, tolerance, worst = max(errors, key=lambda entry: entry[0] / entry[1])
    failures = tuple(f"{what}: {error:.2e} > {limit:.0e}" for error, limit, what in errors if not error <= limit)
    return Result(family, case, len(compared), worst, error, tolerance, failures)
