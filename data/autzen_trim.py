"""Autzen stadium in Oregon from the air: one laser scan with colours, ground told from everything else.

Origin: https://github.com/laspy/laspy (tests/data/autzen_trim.laz), also in laspy's source distribution on PyPI.
Licence: BSD-2-Clause. Layout: autzen_trim/*.laz, coordinates in international feet (Oregon Lambert, NAD83 HARN), of
which metres are made here.
Splits by place, in every file: of its points, sorted from west to east, the first 70 % are training, the next 10 %
validation, the last 20 % the test.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.root import files, folder
from data.splits import consecutive
from perceiver.errors import InputError
from perceiver.io import read_points

ORIGIN = "https://github.com/laspy/laspy (tests/data/autzen_trim.laz)"
CLASSES = {1: "other", 2: "ground"}
FEATURES = ("intensity", "return_number", "number_of_returns", "red", "green", "blue")
IGNORED = -1
"""Label of points of any other class."""

ENDS = {"train": 0.7, "validation": 0.8, "test": 1.0}
FOOT = 0.3048
"""Metres in an international foot."""


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
    """A part of a file, from west to east.

    Attributes:
        file: the file's name.
        points: float64 [n, 9]: x to the east, y to the north and z up in metres, from the lower corner of the whole
            file; then FEATURES, colours from 0 to 65535.
        labels: int32 [n], the class's place in CLASSES.
    """

    file: str
    points: np.ndarray
    labels: np.ndarray


def load(root: str | Path | None = None) -> dict[str, Sequence[Strip]]:
    """The splits "train", "validation" and "test", one strip of every file in each.

    Raises:
        InputError: the dataset is absent, or a file is damaged or lacks a feature.
    """
    splits: dict[str, list[Strip]] = {name: [] for name in ENDS}
    for path in files(folder("autzen_trim", root, ORIGIN), "*.laz"):
        points, labels = _read(path)
        for name, numbers in consecutive(np.argsort(points[:, 0], kind="stable"), ENDS).items():
            if len(numbers):
                splits[name].append(Strip(path.name, points[numbers], labels[numbers]))
    return splits


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    cloud = read_points(path)
    missing = [name for name in (*FEATURES, "classification") if name not in cloud.features]
    if missing:
        raise InputError(f"{path}: expected the point feature {missing[0]!r}, got {sorted(cloud.features)}")
    numbers = np.full(256, IGNORED, np.int32)
    numbers[list(CLASSES)] = np.arange(len(CLASSES))
    xyz = (cloud.xyz - cloud.xyz.min(axis=0)) * FOOT
    points = np.column_stack([xyz, *[cloud.features[name] for name in FEATURES]])
    return points, numbers[cloud.features["classification"]]
