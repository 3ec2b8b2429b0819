"""Copies of a part of each dataset, in the datasets' own layouts, for runs that only have to go through."""

import csv
import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
from PIL import Image

from data.fashion_mnist import CLASSES, FILES


def _lines(keep: Callable[[int], bool]) -> Callable[[Path, Path], None]:
    """The lines of text files whose number is kept."""

    def copy(source: Path, target: Path) -> None:
        lines = source.read_bytes().splitlines(keepends=True)
        target.write_bytes(b"".join(line for i, line in enumerate(lines) if keep(i)))

    return copy


def _rows(source: Path, target: Path) -> None:
    """The header of a CSV file and every eighth row; other files as they are."""
    if source.suffix != ".csv":
        shutil.copy(source, target)
        return
    with source.open(newline="", encoding="utf-8") as read, target.open("w", newline="", encoding="utf-8") as written:
        for i, row in enumerate(csv.reader(read)):
            if i == 0 or i % 8 == 1:
                csv.writer(written).writerow(row)


def _takes(source: Path, target: Path) -> None:
    """One recording of each speaker and digit for each split."""
    if source.stem.split("_")[-1] in ("0", "5", "10"):
        shutil.copy(source, target)


def _corner(source: Path, target: Path) -> None:
    """The points of the first 15 m of a tile."""
    tile = laspy.read(source)
    near = (tile.x < tile.x.min() + 15) & (tile.y < tile.y.min() + 15)
    tile.points = tile.points[near]
    tile.write(target)


def _columns(source: Path, target: Path) -> None:
    """The first columns of a revolution."""
    with np.load(source) as scan:
        arrays = dict(scan)
    width = max(array.shape[1] for array in arrays.values() if array.ndim > 1)
    cut = {name: a[:, :128] if a.ndim > 1 and a.shape[1] == width else a for name, a in arrays.items()}
    np.savez(target, **cut)


def _middle(source: Path, target: Path) -> None:
    """96 x 96 pixels of a frame."""
    Image.open(source).crop((300, 100, 396, 196)).save(target)


COPIES: dict[str, Callable[[Path, Path], None]] = {
    "banking77": _rows,
    "fsdd": _takes,
    "ign_lidarhd": _corner,
    "ouster_scans": _columns,
    "sentence_polarity": _lines(lambda i: i % 20 == 0),
    "sintel_frames": _middle,
    "tinyshakespeare": _lines(lambda i: i % 30 == 0),
    "wall_following_robot": _lines(lambda i: i % 8 == 0),
}


def part_of(name: str, root: Path, target: Path) -> None:
    """Copy a part of root/name to target/name; nothing where it is absent."""
    kinds = {".csv", ".json", ".laz", ".neg", ".npz", ".png", ".pos", ".wav", ".txt"}
    for file in sorted((root / name).rglob("*")):
        if file.suffix in kinds and file.name not in ("SOURCE.txt", "README.txt"):
            place = target / file.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            COPIES[name](file, place)


def idx(path: Path, array: np.ndarray) -> None:
    """Write a gzipped IDX file of bytes."""
    axes = array.ndim
    head = struct.pack(f">{1 + axes}I", 0x0800 | axes, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def clothes(target: Path) -> None:
    """Made-up pictures in the layout of Fashion-MNIST, a bright bar for each class."""
    rng = np.random.default_rng(0)
    target.mkdir(parents=True)
    for (pictures, labels), count in zip(FILES.values(), (600, 100), strict=True):
        numbers = np.arange(count, dtype=np.uint8) % len(CLASSES)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), 2 * numbers + 4] = 255
        idx(target / pictures, images)
        idx(target / labels, numbers)
