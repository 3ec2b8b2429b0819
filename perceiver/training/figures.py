"""Figures of a report as flat names and numbers."""

import math
from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested figures as one level of dotted names; what is not a number is left out."""
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{prefix}{name}"] = float(value)
    return found


COUNTS = ("items", "episodes")
"""Figures that say of how many others are."""


def counts(name: str) -> bool:
    """Whether a figure of such a dotted name says how many there were."""
    return name.rpartition(".")[2] in COUNTS


def scored(name: str) -> bool:
    """Whether a figure of such a dotted name is itself a score: neither a count nor an end of an interval."""
    return not counts(name) and "interval_95" not in name.split(".")
