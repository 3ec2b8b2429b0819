"""Arrays in npz files, never unpickled."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing


def read_arrays(
    path: Path, required: Mapping[str, tuple[type, int]], optional: Mapping[str, tuple[type, int]]
) -> dict[str, np.ndarray]:
    """Read arrays by name; required, optional: the NumPy type of the elements and the number of axes of each.

    Raises:
        InputError: no npz file, damaged, a missing array, another type or number of axes, NaN or infinity.
    """
    found = {}
    with (
        naming(str(path)),
        refusing("an npz file of plain arrays"),
        open(existing_file(path), "rb") as file,  # np.load leaves it open when it fails
        np.load(file, allow_pickle=False) as archive,
    ):
        missing = sorted(set(required) - set(archive.files))
        if missing:
            raise InputError(f"expected the array {missing[0]!r}, got {sorted(archive.files)}")
        for name, (kind, axes) in {**required, **optional}.items():
            if name in archive.files:
                found[name] = archive[name]
                _check(name, found[name], kind, axes)
    return found


def _check(name: str, array: np.ndarray, kind: type, axes: int) -> None:
    if not np.issubdtype(array.dtype, kind) or array.ndim != axes:
        raise InputError(f"{name}: expected {kind.__name__} with {axes} axes, got {array.dtype} {list(array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(f"{name}: expected finite numbers, got {array[tuple(place)]} at {place}")
