"""Random changes to samples on the host; all randomness comes from the generator that is passed."""

import numpy as np
from PIL import Image as Picture


def shift_and_turn(
    image: np.ndarray, rng: np.random.Generator, *, shift: float, degrees: float, scale: float
) -> np.ndarray:
    """Move, turn and resize a picture a little about its middle, uniformly within the given bounds.

    image: uint8 [h, w, c]; what comes into view is 0. shift: pixels. degrees: of rotation. scale: relative size.
    """
    height, width, channels = image.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    size = 1.0 + rng.uniform(-scale, scale)
    dx, dy = rng.uniform(-shift, shift, 2)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    # Pillow maps output pixel centres back to the input; keep the middle in place before the shift.
    cx, cy = width / 2, height / 2
    matrix = (cos, sin, cx - cos * (cx + dx) - sin * (cy + dy), -sin, cos, cy + sin * (cx + dx) - cos * (cy + dy))
    planes = [
        np.asarray(
            Picture.fromarray(image[..., c]).transform(
                (width, height), Picture.Transform.AFFINE, matrix, Picture.Resampling.BILINEAR
            )
        )
        for c in range(channels)
    ]
    return np.stack(planes, axis=-1)


def turn_about_vertical(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a cloud [n, 3 + features] by any angle about the z axis, mirrored half of the time."""
    angle = rng.uniform(0.0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    turned = points.copy()
    turned[:, 0] = mirror * (cos * points[:, 0] - sin * points[:, 1])
    turned[:, 1] = sin * points[:, 0] + cos * points[:, 1]
    return turned
