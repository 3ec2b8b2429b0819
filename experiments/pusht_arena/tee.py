"""The T of Push-T: its outline, where an agent touches it, and how far it is from its goal.

Lengths are pixels of gym-pusht's plane of 512; a pose is x, y of the body's origin, the middle of the bar's outer edge,
and its angle in radians.
"""

import numpy as np

SIDE = 512.0
RADIUS = 15.0
"""Of the agent."""
GOAL = (256.0, 256.0, np.pi / 4)
CENTRE = (0.0, 45.0)
"""Of the T's mass in its own frame."""
GYRATION = 49.0
"""Root mean square distance of the T's points from CENTRE."""
OUTLINE = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], np.float64)
"""Corners in the T's own frame, one after the other."""
KEYPOINTS = np.array([(-60, 0), (60, 0), (60, 30), (-60, 30), (-15, 30), (15, 30), (15, 120), (-15, 120)], np.float64)
"""gym-pusht's, in the T's own frame: the corners of the bar, and those of the stem."""
SPACING = 15.0
"""At most, from one place of contact to the next."""


def to_world(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points [n, 2] of the T's frame, seen from the world."""
    return points @ _turn(pose[2]).T + pose[:2]


def to_tee(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points [n, 2] of the world, seen from the T."""
    return (points - pose[:2]) @ _turn(pose[2])


def pose_of(keypoints: np.ndarray) -> np.ndarray:
    """The pose [3] that gym-pusht's keypoints [8, 2] show: the first two are the ends of the bar's outer edge."""
    x, y = (keypoints[0] + keypoints[1]) / 2
    along = keypoints[1] - keypoints[0]
    return np.array([x, y, np.arctan2(along[1], along[0])])


def error(poses: np.ndarray) -> np.ndarray:
    """How far the T's points are from where they are to be, root mean square, for poses [n, 3]."""
    return np.sqrt(((_centre(poses) - _centre(np.array([GOAL]))) ** 2).sum(axis=1) + _turned(poses[:, 2]))


def contacts() -> tuple[np.ndarray, np.ndarray]:
    """Places on the outline [n, 2] that an agent's rim reaches, and the outward normals there [n, 2]."""
    places, normals = [], []
    for corner, after in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        length = np.linalg.norm(after - corner)
        along = (after - corner) / length
        normal = np.array([along[1], -along[0]])
        count = int(np.ceil(length / SPACING))
        for number in range(count):
            place = corner + along * length * (number + 0.5) / count
            if _outside(place + normal * RADIUS):
                places.append(place)
                normals.append(normal)
    return np.array(places), np.array(normals)


def _outside(place: np.ndarray) -> bool:
    """Whether an agent there does not overlap the T."""
    bar = np.maximum(np.abs(place - [0, 15]) - [60, 15], 0)
    stem = np.maximum(np.abs(place - [0, 75]) - [15, 45], 0)
    return bool(min(np.linalg.norm(bar), np.linalg.norm(stem)) > RADIUS - 1e-6)


def _centre(poses: np.ndarray) -> np.ndarray:
    cosine, sine = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    x, y = CENTRE
    return poses[:, :2] + np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


def _turned(angles: np.ndarray) -> np.ndarray:
    return 2 * GYRATION**2 * (1 - np.cos(angles - GOAL[2]))


def _turn(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])
