"""Pictures, uint8 [h, w, c] with any number of channels: moved, cropped, mirrored, partly hidden."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image as Picture

from perceiver.errors import InputError


def shift_and_turn(
    image: np.ndarray, rng: np.random.Generator, *, shift: float, degrees: float, scale: float
) -> np.ndarray:
    """Move, turn and resize a picture a little about its middle, uniformly within the given bounds.

    image: uint8 [h, w, c]; what comes into view is 0. shift: pixels. degrees: of rotation. scale: relative size.
    """
    height, width, _ = image.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    size = 1.0 + rng.uniform(-scale, scale)
    dx, dy = rng.uniform(-shift, shift, 2)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    # Pillow maps output pixel centres back to the input; keep the middle in place before the shift.
    cx, cy = width / 2, height / 2
    matrix = (cos, sin, cx - cos * (cx + dx) - sin * (cy + dy), -sin, cos, cy + sin * (cx + dx) - cos * (cy + dy))
    return _by_channel(
        image,
        lambda plane: plane.transform((width, height), Picture.Transform.AFFINE, matrix, Picture.Resampling.BILINEAR),
    )


def random_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    padding: int = 0,
    size: tuple[int, int] | None = None,
    reflect: bool = False,
) -> np.ndarray:
    """A window anywhere in a picture that is padded on all sides; the usual change for CIFAR (arXiv 1512.03385).

    image: uint8 [h, w, c]. padding: pixels, mirrored ones or 0. size: (height, width) of the window; None keeps that
    of the picture.

    Raises:
        InputError: the padded picture is smaller than the window.
    """
    height, width = size or image.shape[:2]
    margins = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, margins, mode="reflect" if reflect else "constant")
    rows, columns = padded.shape[0] - height, padded.shape[1] - width
    if min(rows, columns) < 0:
        raise InputError(f"expected at least {height} x {width} pixels with {padding} of padding, got {image.shape}")
    top, left = rng.integers(rows + 1), rng.integers(columns + 1)
    return padded[top : top + height, left : left + width].copy()


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A part of a picture of random area and aspect, resized (arXiv 1409.4842); bilinear, smoothed where it shrinks.

    image: uint8 [h, w, c]. size: (height, width) of the result. area: share of the picture, uniform. ratio: width over
    height, uniform in its logarithm. What does not fit into the picture in ten draws becomes its largest middle part
    of an allowed ratio.
    """
    height, width, _ = image.shape
    for rows, columns in _rectangles(height, width, rng, area, ratio):
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            break
    else:
        aspect = min(max(width / height, ratio[0]), ratio[1])
        rows, columns = min(height, round(width / aspect)), min(width, round(height * aspect))
        rows, columns = max(rows, 1), max(columns, 1)
        top, left = (height - rows) // 2, (width - columns) // 2
    box = (left, top, left + columns, top + rows)
    return _by_channel(image, lambda plane: plane.resize((size[1], size[0]), Picture.Resampling.BILINEAR, box))


def flip(image: np.ndarray, rng: np.random.Generator, *, chance: float = 0.5) -> np.ndarray:
    """A picture [h, w, c] of any dtype, left and right exchanged with the given chance."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < chance else image


def colour_jitter(
    image: np.ndarray, rng: np.random.Generator, *, brightness: float = 0.2, contrast: float = 0.2, colour: float = 0.2
) -> np.ndarray:
    """A picture in another light: uint8 [h, w, c], each quality times a factor uniform in 1 ± its argument.

    brightness: of the mean grey. contrast: of the distance from it. colour: of the distance from each pixel's grey.
    """
    factors = [rng.uniform(1 - most, 1 + most) for most in (brightness, contrast, colour)]
    pixels = image.astype(np.float32)
    mean = pixels.mean()
    pixels = (pixels - mean) * factors[1] + mean * factors[0]
    grey = pixels.mean(axis=-1, keepdims=True)
    return np.clip(grey + (pixels - grey) * factors[2], 0, 255).astype(np.uint8)


def random_erasing(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    chance: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
    fill: int | None = None,
) -> np.ndarray:
    """Hide a rectangle with the given chance (arXiv 1708.04896).

    image: uint8 [h, w, c]. area: share of the picture, uniform. ratio: width over height, uniform in its logarithm.
    fill: what is put there; None takes random bytes. A rectangle that does not fit in ten draws is left out.
    """
    height, width, _ = image.shape
    if rng.random() >= chance:
        return image
    for rows, columns in _rectangles(height, width, rng, area, ratio):
        if rows <= height and columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            hidden = image.copy()
            part = hidden[top : top + rows, left : left + columns]
            part[...] = rng.integers(0, 256, part.shape, dtype=np.uint8) if fill is None else fill
            return hidden
    return image


def cutout(image: np.ndarray, rng: np.random.Generator, *, side: int, fill: int = 0) -> np.ndarray:
    """Hide a square whose middle is any pixel, so that it may reach over the edge (arXiv 1708.04552).

    image: [h, w, c] of any dtype. side: pixels.
    """
    height, width, _ = image.shape
    top, left = rng.integers(height) - side // 2, rng.integers(width) - side // 2
    hidden = image.copy()
    hidden[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = fill
    return hidden


def _by_channel(image: np.ndarray, change: Callable[[Picture.Image], Picture.Image]) -> np.ndarray:
    """Change each channel as a picture of its own: Pillow's interpolation treats them apart in any case."""
    planes = [np.asarray(change(Picture.fromarray(image[..., c]))) for c in range(image.shape[2])]
    return np.stack(planes, axis=-1)


def _rectangles(
    height: int, width: int, rng: np.random.Generator, area: tuple[float, float], ratio: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Ten draws of rows and columns, each made when it is asked for; they need not fit into the picture."""
    for _ in range(10):
        pixels = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        yield round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
