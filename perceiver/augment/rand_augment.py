"""RandAugment (arXiv 1909.13719): a few operations of a fixed list, all of one strength."""

from collections.abc import Callable

import numpy as np
from PIL import Image as Picture
from PIL import ImageEnhance, ImageOps

from perceiver.errors import InputError

STRONGEST = 10.0
"""The magnitude at which an operation does the most that it can."""

Operation = Callable[[Picture.Image, float, int], Picture.Image]
"""(picture, signed strength in [-1, 1], grey level of what comes into view) -> picture."""


def _level(picture: Picture.Image, fill: int) -> tuple[int, ...]:
    return (fill,) * len(picture.getbands())


def _affine(picture: Picture.Image, matrix: tuple[float, ...], fill: int) -> Picture.Image:
    return picture.transform(
        picture.size, Picture.Transform.AFFINE, matrix, Picture.Resampling.BILINEAR, fillcolor=_level(picture, fill)
    )


def _rotate(picture: Picture.Image, strength: float, fill: int) -> Picture.Image:
    return picture.rotate(30.0 * strength, Picture.Resampling.BILINEAR, fillcolor=_level(picture, fill))


def _shear_x(picture: Picture.Image, strength: float, fill: int) -> Picture.Image:
    slope = 0.3 * strength
    return _affine(picture, (1, slope, -slope * picture.height / 2, 0, 1, 0), fill)


def _shear_y(picture: Picture.Image, strength: float, fill: int) -> Picture.Image:
    slope = 0.3 * strength
    return _affine(picture, (1, 0, 0, slope, 1, -slope * picture.width / 2), fill)


def _translate_x(picture: Picture.Image, strength: float, fill: int) -> Picture.Image:
    return _affine(picture, (1, 0, 0.45 * strength * picture.width, 0, 1, 0), fill)


def _translate_y(picture: Picture.Image, strength: float, fill: int) -> Picture.Image:
    return _affine(picture, (1, 0, 0, 0, 1, 0.45 * strength * picture.height), fill)


def _posterise(picture: Picture.Image, strength: float, _: int) -> Picture.Image:
    return ImageOps.posterize(picture, 8 - round(4 * abs(strength)))


def _solarise(picture: Picture.Image, strength: float, _: int) -> Picture.Image:
    return ImageOps.solarize(picture, round(256 * (1 - abs(strength))))


def _enhanced(kind: Callable[[Picture.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, strength, _: kind(picture).enhance(1.0 + 0.9 * strength)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, _, __: picture,
    "autocontrast": lambda picture, _, __: ImageOps.autocontrast(picture),
    "equalise": lambda picture, _, __: ImageOps.equalize(picture),
    "rotate": _rotate,
    "solarise": _solarise,
    "colour": _enhanced(ImageEnhance.Color),
    "posterise": _posterise,
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""The paper's list. At strength 0 each leaves a picture as it is but autocontrast and equalise, which know no strength.
At 1: 30 degrees, 4 bits, solarised from 0 on, factors of 0.1 or 1.9, a shear of 0.3, 45 % of a side.
"""


def rand_augment(
    image: np.ndarray, rng: np.random.Generator, operations: int = 2, magnitude: float = 9.0, *, fill: int = 128
) -> np.ndarray:
    """Apply `operations` operations, drawn with replacement, each in a random direction.

    image: uint8 [h, w, 1 or 3]. magnitude: strength of all of them, 0 to 10. fill: grey level of what comes into view.

    Raises:
        InputError: another number of channels, or a magnitude out of range.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise InputError(f"expected uint8 [h, w, 1 or 3], got {image.dtype} {list(image.shape)}")
    if not 0 <= magnitude <= STRONGEST:
        raise InputError(f"expected a magnitude in [0, {STRONGEST:.0f}], got {magnitude}")
    picture = Picture.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    chosen = list(OPERATIONS.values())
    for _ in range(operations):
        operation = chosen[rng.integers(len(chosen))]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        picture = operation(picture, sign * magnitude / STRONGEST, fill)
    return np.asarray(picture).reshape(image.shape).copy()
