"""Single revolutions of spinning laser scanners (Ouster OS-0 and OS-1) as range images; no labels.

Origin: https://github.com/ouster-lidar/ouster-sdk (tests/pcaps), decoded by ouster-sdk into images whose columns are
directions, and written as npz. Licence: BSD-3-Clause. Layout: ouster_scans/*.npz, each with xyz [h, w, 3] float32,
RANGE [h, w] uint32 in millimetres, REFLECTIVITY uint8, NEAR_IR uint16 and, of some sensors, SIGNAL uint16.
Splits by file, in the order of their names: the last is the test, the one before it validation, the rest training;
fewer than three files are a test altogether.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.arrays import read_arrays
from data.lazy import Lazy
from data.root import files, folder
from data.splits import last_for_test
from perceiver.errors import InputError

ORIGIN = "https://github.com/ouster-lidar/ouster-sdk (tests/pcaps), decoded to npz"
REQUIRED = {"xyz": (np.float32, 3), "RANGE": (np.uint32, 2), "REFLECTIVITY": (np.uint8, 2), "NEAR_IR": (np.uint16, 2)}
OPTIONAL = {"SIGNAL": (np.uint16, 2)}


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """One revolution: a row for each laser from the top down, a column for each direction.

    Attributes:
        file: the file's name.
        xyz: float32 [h, w, 3], metres in the sensor's frame; zeros where nothing came back.
        range: float32 [h, w], metres along the beam; 0 where nothing came back.
        reflectivity: uint8 [h, w], calibrated by the sensor.
        near_infrared: uint16 [h, w], photons of ambient light.
        signal: uint16 [h, w], photons of the beam's return; None where the sensor does not send it.
    """

    file: str
    xyz: np.ndarray
    range: np.ndarray
    reflectivity: np.ndarray
    near_infrared: np.ndarray
    signal: np.ndarray | None


def load(root: str | Path | None = None) -> dict[str, Sequence[Scan]]:
    """The splits "train", "validation" and "test". A file is read when its item is asked for.

    Raises:
        InputError: the dataset is absent. A damaged file or one with other arrays: when its item is asked for.
    """
    return last_for_test(Lazy(files(folder("ouster_scans", root, ORIGIN), "*.npz"), read_scan))


def read_scan(path: Path) -> Scan:
    """One file.

    Raises:
        InputError: damaged, without one of the arrays, or arrays of different sizes.
    """
    arrays = read_arrays(path, REQUIRED, OPTIONAL)
    size = arrays["RANGE"].shape
    for name, array in arrays.items():
        expected = (*size, 3) if name == "xyz" else size
        if array.shape != expected:
            raise InputError(f"{path}: {name}: expected {list(expected)} as of RANGE, got {list(array.shape)}")
    metres = (arrays["RANGE"] / 1000).astype(np.float32)
    return Scan(path.name, arrays["xyz"], metres, arrays["REFLECTIVITY"], arrays["NEAR_IR"], arrays.get("SIGNAL"))
