"""Point clouds on the host: LAS, LAZ, PCD, PLY, KITTI, nuScenes and npz files to coordinates with features."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing
from perceiver.io.las import read_las
from perceiver.io.lidar_bin import read_kitti, read_nuscenes
from perceiver.io.pcd import read_pcd
from perceiver.io.ply import read_ply
from perceiver.io.points_npz import read_npz


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points with what was measured at each.

    Attributes:
        xyz: float64 [n, 3], metres. Float32 would lose centimetres in map coordinates.
        features: by name, each [n], in the file's own dtype and unit.

    Raises:
        InputError: the shapes do not agree.
    """

    xyz: np.ndarray
    features: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        if self.xyz.dtype != np.float64 or self.xyz.ndim != 2 or self.xyz.shape[1] != 3:
            raise InputError(f"xyz: expected float64 [n, 3], got {self.xyz.dtype} {list(self.xyz.shape)}")
        for name, values in self.features.items():
            if values.shape != self.xyz.shape[:1]:
                raise InputError(f"{name}: expected [{len(self.xyz)}], got {list(values.shape)}")


# A format's reader takes the file and the most points that it may hold, and returns xyz float64 [n, 3] and
# the features, each [n]; n is not checked to be above 0 nor xyz to be finite: read_points does that for all.
Reader = Callable[[Path, int], tuple[np.ndarray, dict[str, np.ndarray]]]

READERS: dict[str, Reader] = {
    ".las": read_las,
    ".laz": read_las,
    ".bin": read_kitti,
    ".pcd.bin": read_nuscenes,
    ".npz": read_npz,
    ".pcd": read_pcd,
    ".ply": read_ply,
}


def read_points(path: str | os.PathLike[str], max_points: int = 50_000_000, *, drop_nonfinite: bool = False) -> Cloud:
    """Read a point cloud; the suffix decides on the format, the longest that fits.

    - `.las`, `.laz` (ASPRS LAS 1.0 to 1.4, needs the extra `points`): intensity, return_number,
      number_of_returns, classification, and red, green, blue, gps_time where the point format has them.
      Coordinates are in the file's reference system; feet are not converted.
    - `.bin` (KITTI velodyne, float32 x, y, z, intensity): intensity.
    - `.pcd.bin` (nuScenes lidar, float32 x, y, z, intensity, ring): intensity, ring.
    - `.npz` (`xyz` [n, 3], or `x`, `y`, `z` [n]): every other one-dimensional array of n numbers.
    - `.pcd` (Point Cloud Library 0.5 to 0.7, all encodings): every other field; one of k numbers a point as
      `name_0` to `name_<k - 1>`. A colour packed into a float32 `rgb` stays packed.
    - `.ply` (1.0, ascii and binary): every other property of `vertex`; other elements, such as faces, are skipped.

    Args:
        path: the file.
        max_points: number of points above which the file is refused, before they are read.
        drop_nonfinite: leave out points whose coordinates are NaN or infinite instead of refusing the file.
            Features are not looked at.

    Returns:
        The cloud, of at least one point.

    Raises:
        InputError: no such file, an unknown suffix, another format inside, truncated, a header that
            disagrees with the content, too many points, none, or coordinates that are not finite.
        MissingExtraError: laspy is not installed.
    """
    with naming(os.fspath(path)):
        suffix = _suffix(os.path.basename(os.fspath(path)))
        file = existing_file(path)
        with refusing(f"a point cloud in {suffix} format"):
            xyz, features = READERS[suffix](file, max_points)
        finite = np.isfinite(xyz).all(axis=1)
        bad = len(xyz) - int(finite.sum())
        if bad and not drop_nonfinite:
            raise InputError(
                f"expected finite coordinates, got {bad} of {len(xyz)} points with NaN or infinity, "
                f"first at {int(finite.argmin())}"
            )
        if bad:
            xyz, features = xyz[finite], {name: values[finite] for name, values in features.items()}
        if not len(xyz):
            raise InputError("expected at least one point" + (" with finite coordinates" if bad else "") + ", got none")
        return Cloud(xyz, features)


def _suffix(name: str) -> str:
    """Return the longest known suffix of a file's name: `.pcd.bin` before `.bin`."""
    fitting = [suffix for suffix in READERS if name.lower().endswith(suffix)]
    if not fitting:
        raise InputError(f"expected a name that ends in one of {', '.join(READERS)}, got {name!r}")
    return max(fitting, key=len)
