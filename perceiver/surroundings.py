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
    offsets = [(axis[found] - axis[:, None]).astype(np.float32, copy=False) for axis in np.ascontiguousarray(xyz.T)]
    sizes = [min(k, most) for k in neighbours]
    return np.concatenate([_shape([o[:, :k] for o in offsets], distances[:, k - 1]) for k in sizes], axis=1)


def _shape(offsets: list[np.ndarray], reach: np.ndarray) -> np.ndarray:
    """offsets: of the neighbours, [n, k] along each axis. reach: distance [n] to the farthest."""
    middle = [axis - axis.mean(axis=1, keepdims=True) for axis in offsets]
    covariance = np.empty((len(reach), 3, 3), np.float32)
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        covariance[:, i, j] = covariance[:, j, i] = np.einsum("nk,nk->n", middle[i], middle[j])
    values, vectors = np.linalg.eigh(covariance / offsets[0].shape[1])
    small, medium, large = np.sqrt(np.maximum(values, 0.0)).T
    whole = np.maximum(large, 1e-6)
    height = offsets[2]
    return np.column_stack(
        [
            (large - medium) / whole,
            (medium - small) / whole,
            small / whole,
            1.0 - np.abs(vectors[:, 2, 0]),
            np.sqrt(np.square(middle[2]).mean(axis=1)),
            -height.min(axis=1),
            height.max(axis=1),
            reach,
        ]
    ).astype(np.float32)
