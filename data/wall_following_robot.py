"""A robot that follows a wall: 24 ultrasound ranges around its waist, and which way it steered, nine times a second.

Origin: UCI Machine Learning Repository, dataset 194, sensor_readings_24 (SCITOS G5; Freire et al. 2009),
https://doi.org/10.24432/C57C8W. Licence: CC BY 4.0. Layout: wall_following_robot/*.csv with the columns S1 to S24 and
OUTPUT, rows in the order of time; UCI's whole has 5,456.
Splits in time, all files after each other in the order of their names: the first 70 % of the rows are training, the
next 10 % validation, the last 20 % the test. Rows next to each other are much alike: rows drawn at random would not be
a test.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.root import files, folder
from data.splits import consecutive
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

ORIGIN = "https://doi.org/10.24432/C57C8W (sensor_readings_24, with a header S1,...,S24,OUTPUT)"
CLASSES = ("Move-Forward", "Slight-Right-Turn", "Sharp-Right-Turn", "Slight-Left-Turn")
HEADER = [*(f"S{number}" for number in range(1, 25)), "OUTPUT"]
HZ = 9
"""Rows in a second."""

ENDS = {"train": 0.7, "validation": 0.8, "test": 1.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """ranges: float32 [24], metres, one for each sensor around the robot, 5 at most; command: its place in CLASSES."""

    ranges: np.ndarray
    command: int


def load(root: str | Path | None = None) -> dict[str, Sequence[Reading]]:
    """The splits "train", "validation" and "test", each in the order of time.

    Raises:
        InputError: the dataset is absent or has no row, a header differs, or a row is not 24 ranges and a command.
    """
    place = folder("wall_following_robot", root, ORIGIN)
    readings = [one for path in files(place, "*.csv") for one in _read(path)]
    if not readings:
        raise InputError(f"{place}: expected at least one row, got none")
    return consecutive(readings, ENDS)


def _read(path: Path) -> list[Reading]:
    with naming(str(path)), refusing("a table in UTF-8"):
        rows = list(csv.reader(io.StringIO(existing_file(path).read_text(encoding="utf-8"), newline="")))
    if not rows or rows[0] != HEADER:
        raise InputError(f"{path}, line 1: expected the columns S1 to S24 and OUTPUT, got {rows[:1]!r:.120}")
    return [_reading(f"{path}, line {line}", row) for line, row in enumerate(rows[1:], 2)]


def _reading(where: str, row: Sequence[str]) -> Reading:
    if len(row) != len(HEADER):
        raise InputError(f"{where}: expected {len(HEADER)} columns, got {len(row)}")
    if row[-1] not in CLASSES:
        raise InputError(f"{where}, column OUTPUT: expected one of {', '.join(CLASSES)}, got {row[-1]!r}")
    return Reading(
        np.array([_range(where, name, cell) for name, cell in zip(HEADER[:-1], row, strict=False)], np.float32),
        CLASSES.index(row[-1]),
    )


def _range(where: str, name: str, cell: str) -> float:
    try:
        metres = float(cell)
    except ValueError:
        metres = math.nan
    if not 0 <= metres < math.inf:
        raise InputError(f"{where}, column {name}: expected metres, 0 or more, got {cell!r}")
    return metres
