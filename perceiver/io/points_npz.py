"""Point clouds in NumPy archives. Source: NEP 1 (the npy format); an npz file is a zip of npy files."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from perceiver.errors import InputError, naming

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read `xyz` [n, 3], or `x`, `y`, `z` [n], of any real dtype; other 1-D arrays of n numbers are features.

    Arrays of other shapes and kinds are not read. Nothing is unpickled.

    Returns:
        float64 [n, 3] and the features, each [n] in its own dtype.

    Raises:
        InputError: no coordinates, shapes that do not agree, Python objects, too many points, or an array
            whose header disagrees with the size of its member.
    """
    with zipfile.ZipFile(path) as archive:
        shapes = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with naming(info.filename):
                    shapes[info.filename[:-4]] = _check_member(archive, info)
        keys = ("xyz",) if "xyz" in shapes else ("x", "y", "z")
        count = _count_points(shapes, keys, max_points)
        coordinates = [_read_member(archive, key) for key in keys]
        xyz = coordinates[0] if keys == ("xyz",) else np.stack(coordinates, axis=1)
        others = [key for key, shape in shapes.items() if key not in keys and shape == (count,)]
        features = {key: _read_member(archive, key) for key in others}
    return np.ascontiguousarray(xyz, dtype=np.float64), features


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...] | None:
    """Return the shape of an array of real numbers, None for other kinds; read its header only."""
    with archive.open(info) as handle:
        shape, dtype = _read_header(handle)
        if dtype.hasobject:
            raise InputError("expected numbers, got Python objects, which are not unpickled")
        # Before anything is allocated: a header may claim any shape.
        size = handle.tell() + math.prod(shape) * dtype.itemsize
        if size != info.file_size:
            raise InputError(f"expected {size} bytes from the header ({dtype} {shape}), got {info.file_size}")
    return shape if dtype.kind in "biuf" else None


def _read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(handle)
    if version not in _HEADER_READERS:
        raise InputError(f"expected npy version 1.0 or 2.0, got {version}")
    shape, _, dtype = _HEADER_READERS[version](handle)
    return shape, dtype


def _count_points(shapes: dict[str, tuple[int, ...] | None], keys: tuple[str, ...], max_points: int) -> int:
    """Return n after checking the coordinates' shapes."""
    missing = [key for key in keys if shapes.get(key) is None]
    if missing:
        raise InputError(f"expected numeric arrays xyz, or x, y and z, got {sorted(shapes)}")
    first = shapes[keys[0]] or (0,)
    expected = (first[0], 3) if keys == ("xyz",) else (first[0],)
    for key in keys:
        if shapes[key] != expected:
            raise InputError(f"{key}: expected shape {expected}, got {shapes[key]}")
    if first[0] > max_points:
        raise InputError(f"expected at most {max_points} points, got {first[0]}")
    return first[0]


def _read_member(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    with archive.open(key + ".npy") as handle:
        return np.lib.format.read_array(handle, allow_pickle=False)
