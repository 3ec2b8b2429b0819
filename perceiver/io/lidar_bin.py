"""Headerless LiDAR sweeps: little-endian float32 records, as published by KITTI and nuScenes.

Sources: the KITTI raw development kit's readme, section "Velodyne 3D laser scan data"; nuscenes-devkit,
`LidarPointCloud.from_file`.
"""

from pathlib import Path

import numpy as np

from perceiver.errors import InputError


def read_kitti(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read records of x, y, z (metres), intensity [0, 1]: float64 [n, 3] and {intensity: float32 [n]}.

    Raises:
        InputError: a size that is no multiple of 16 bytes, or too many points.
    """
    return _read_records(path, max_points, ("intensity",))


def read_nuscenes(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read records of x, y, z (metres), intensity [0, 255], ring: float64 [n, 3] and float32 [n] each.

    Raises:
        InputError: a size that is no multiple of 20 bytes, or too many points.
    """
    return _read_records(path, max_points, ("intensity", "ring"))


def _read_records(path: Path, max_points: int, features: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    columns = 3 + len(features)
    count, rest = divmod(path.stat().st_size, 4 * columns)
    if rest:
        raise InputError(f"expected records of {4 * columns} bytes, got {count} and {rest} bytes more")
    if count > max_points:
        raise InputError(f"expected at most {max_points} points, got {count}")
    records = np.fromfile(path, "<f4", count * columns).reshape(count, columns)
    # Copies, so that a feature kept for long does not hold the whole sweep.
    return records[:, :3].astype(np.float64), {
        name: records[:, 3 + k].astype(np.float32) for k, name in enumerate(features)
    }
