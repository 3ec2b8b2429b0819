"""Point clouds, floating point [n, 3 + features]: x, y, z in metres, then features, which no function changes.

What belongs to each point, such as its class, can ride along as a further feature.
"""

import numpy as np


def turn_about_vertical(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a cloud [n, 3 + features] by any angle about the z axis, mirrored half of the time."""
    turned = _turned(points, rng.uniform(0.0, 2 * np.pi))
    if rng.random() >= 0.5:
        turned[:, 0] *= -1
    return turned


def yaw(points: np.ndarray, rng: np.random.Generator, *, degrees: float) -> np.ndarray:
    """Turn a cloud [n, 3 + features] about the z axis by at most `degrees` either way."""
    return _turned(points, np.deg2rad(rng.uniform(-degrees, degrees)))


def mirror(
    points: np.ndarray, rng: np.random.Generator, *, axes: tuple[int, ...] = (1,), chance: float = 0.5
) -> np.ndarray:
    """Change the sign of each of the `axes` (0 is x) with the given chance; y alone is left and right of a vehicle."""
    mirrored = points.copy()
    for axis in axes:
        if rng.random() < chance:
            mirrored[:, axis] *= -1
    return mirrored


def scale(points: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Enlarge a cloud [n, 3 + features] about the origin by a factor in 1 ± `amount`."""
    return _moved(points, points[:, :3] * rng.uniform(1.0 - amount, 1.0 + amount))


def shift(points: np.ndarray, rng: np.random.Generator, *, metres: float | tuple[float, float, float]) -> np.ndarray:
    """Move a cloud [n, 3 + features] as a whole, by at most `metres` either way along each axis."""
    bounds = np.broadcast_to(metres, 3)
    return _moved(points, points[:, :3] + rng.uniform(-bounds, bounds))


def jitter(points: np.ndarray, rng: np.random.Generator, deviation: float, *, most: float | None = None) -> np.ndarray:
    """Move each point [n, 3 + features] by itself: normal along each axis, cut off at `most`; metres.

    most: unless given, three deviations.
    """
    limit = 3.0 * deviation if most is None else most
    return _moved(points, points[:, :3] + np.clip(rng.normal(0.0, deviation, (len(points), 3)), -limit, limit))


def drop(points: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Leave out a share of the points, uniform in [0, most]: [m, 3 + features], in their old order.

    One point at least is left.
    """
    if not len(points):
        return points
    count = max(round(len(points) * (1.0 - rng.uniform(0.0, most))), 1)
    return points[np.sort(rng.choice(len(points), count, replace=False))]


def crop_range(points: np.ndarray, rng: np.random.Generator, *, nearest: float, farthest: float) -> np.ndarray:
    """What a sensor at the origin with less reach would see: [m, 3 + features], in their old order.

    The reach is uniform between the bounds, in metres. The nearest point always stays.
    """
    if not len(points):
        return points
    distances = np.linalg.norm(points[:, :3], axis=1)
    return points[distances <= max(rng.uniform(nearest, farthest), distances.min())]


def keep_within(points: np.ndarray, distance: float) -> np.ndarray:
    """The points [m, 3 + features] at most `distance` metres from the origin, in their old order; maybe none."""
    return points[np.linalg.norm(points[:, :3], axis=1) <= distance]


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    turned = points.copy()
    turned[:, 0] = cos * points[:, 0] - sin * points[:, 1]
    turned[:, 1] = sin * points[:, 0] + cos * points[:, 1]
    return turned


def _moved(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The cloud at other places, in its own dtype."""
    moved = points.copy()
    moved[:, :3] = places
    return moved
