"""What surrounds each point of a cloud: shape and height of its nearest neighbours, on the host.

Sources: eigenvalue features of Weinmann et al. 2015 (ISPRS J. 105, "Semantic point cloud interpretation based on
optimal neighborhoods, relevant features and efficient classifiers"); heights in vertical columns, Chehata et al. 2009.
"""

import numpy as np

from perceiver.errors import InputError

NAMES = ("linearity", "planarity", "scattering", "verticality", "height_spread", "above", "below", "reach")
"""Features of `shape`: parts of the neighbours' variance along one, two and three axes and how far the plane through
them stands up, all in [0, 1]; standard deviation of their height, and the point's height over the lowest and under the
highest of them, in metres; distance to the farthest, in metres."""


def surroundings(xyz: np.ndarray, neighbours: tuple[int, ...]) -> np.ndarray:
    """Features of each point's nearest neighbours, at several sizes of the neighbourhood.

    xyz: float [n, 3], metres. neighbours: numbers of nearest points, itself included, such as (8, 32).
    A cloud with fewer points has all of them as neighbours.

    Returns:
        float32 [n, 8 * len(neighbours)], NAMES for each size.

    Raises:
        InputError: a size below 3.
    """
    from scipy.spatial import cKDTree

    if min(neighbours) < 3:
        raise InputError(f"neighbours: expected at least 3 of each point, got {neighbours}")
    most = min(max(neighbours), len(xyz))
    distances, found = cKDTree(xyz).query(xyz, most)
    distances, found = distances.reshape(len(xyz), most), found.reshape(len(xyz), most)
    return np.concatenate([_shape(xyz, distances[:, :k], found[:, :k]) for k in neighbours], axis=1)


def _shape(xyz: np.ndarray, distances: np.ndarray, found: np.ndarray) -> np.ndarray:
    offsets = (xyz[found] - xyz[:, None]).astype(np.float32)
    middle = offsets - offsets.mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", middle, middle) / found.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    small, medium, large = np.sqrt(np.maximum(values, 0.0)).T
    whole = np.maximum(large, 1e-6)
    height = offsets[..., 2]
    return np.column_stack(
        [
            (large - medium) / whole,
            (medium - small) / whole,
            small / whole,
            1.0 - np.abs(vectors[:, 2, 0]),
            height.std(axis=1),
            -height.min(axis=1),
            height.max(axis=1),
            distances[:, -1],
        ]
    ).astype(np.float32)
