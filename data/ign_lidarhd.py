"""IGN LiDAR HD: airborne laser scans of France, classified; here five neighbouring tiles of 50 m x 50 m.

Origin: https://github.com/IGNF/ctview (data/laz). Licence: MIT for that repository; the LiDAR HD data as such are
published under the Licence Ouverte / Etalab 2.0. Layout: ign_lidarhd/*.laz, coordinates in EPSG:2154, metres.
Splits by tile, in the order of the file names: the last is the test, the one before it validation, the rest training;
fewer than three tiles are a test altogether.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.root import files, folder
from data.splits import last_for_test
from perceiver.errors import InputError
from perceiver.io import read_points

ORIGIN = "https://github.com/IGNF/ctview (data/laz)"
CLASSES = {2: "ground", 3: "low vegetation", 4: "medium vegetation", 5: "high vegetation", 6: "building"}
FEATURES = ("intensity", "return_number", "number_of_returns")
IGNORED = -1
"""Label of points that are unclassified or to be ignored."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """points: float64 [n, 6], x, y, z in metres and FEATURES; labels: int32 [n], the class's place in CLASSES."""

    path: Path
    points: np.ndarray
    labels: np.ndarray


def load(root: str | Path | None = None, validation: bool = True) -> dict[str, Sequence[Tile]]:
    """The splits "train", "validation" and "test"; without validation, its tile is a training tile.

    Raises:
        InputError: the dataset is absent, or a file is damaged or lacks a feature.
    """
    place = folder("ign_lidarhd", root, ORIGIN)
    splits = last_for_test([read_tile(path) for path in files(place, "*.laz")])
    if validation:
        return splits
    return {"train": [*splits["train"], *splits["validation"]], "validation": [], "test": splits["test"]}


def read_tile(path: Path) -> Tile:
    """One file; x, y from its lower left corner and z from its lowest point."""
    cloud = read_points(path)
    missing = [name for name in (*FEATURES, "classification") if name not in cloud.features]
    if missing:
        raise InputError(f"{path}: expected the point feature {missing[0]!r}")
    numbers = np.full(256, IGNORED, np.int32)
    numbers[list(CLASSES)] = np.arange(len(CLASSES))
    points = np.column_stack([cloud.xyz - cloud.xyz.min(axis=0), *[cloud.features[name] for name in FEATURES]])
    return Tile(path, points, numbers[cloud.features["classification"]])


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square column of a tile: points float32 [n, 6] around its own middle and ground, labels int32 [n]."""

    points: np.ndarray
    labels: np.ndarray


def crop(tile: Tile, corner: np.ndarray, side: float, count: int, rng: np.random.Generator) -> Crop | None:
    """At most `count` random points of the square at `corner` (x, y) with `side` metres; None below 16 points."""
    inside = np.flatnonzero(((tile.points[:, :2] >= corner) & (tile.points[:, :2] < corner + side)).all(axis=1))
    if len(inside) < 16:
        return None
    low = tile.points[inside, 2].min()
    if len(inside) > count:
        inside = np.sort(rng.choice(inside, count, replace=False))
    points = tile.points[inside].copy()
    points[:, :2] -= corner + side / 2
    points[:, 2] -= low
    return Crop(points.astype(np.float32), tile.labels[inside])


def crops(tiles: Sequence[Tile], side: float, step: float, count: int) -> list[Crop]:
    """Squares on a regular grid over every tile, the same each time."""
    found = []
    for tile in tiles:
        rng = np.random.default_rng(0)
        width, depth = tile.points[:, :2].max(axis=0)
        for x in np.arange(0.0, width - side / 2, step):
            for y in np.arange(0.0, depth - side / 2, step):
                found.append(crop(tile, np.array([x, y]), side, count, rng))
    return [one for one in found if one is not None]
