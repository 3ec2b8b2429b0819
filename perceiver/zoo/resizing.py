"""A trained image model at another resolution: the same weights, with learned positions interpolated."""

import dataclasses

import numpy as np

from perceiver.adapters.image import Image
from perceiver.errors import InputError
from perceiver.model import Perceiver
from perceiver.positions import Fourier, Learned, Position, Projected, Refined
from perceiver.saving import weights, with_weights

SHARPNESS = -0.75
"""The free parameter of Keys's cubic kernel; PyTorch's choice, which fine-tuned image models are used to."""


def resized(model: Perceiver, height: int, width: int, modality: str = "image") -> Perceiver:
    """The model for images of another size.

    Fourier features keep their frequencies and span the new size; tables of learned positions are interpolated
    bicubically, as Hugging Face does with interpolate_pos_encoding.
    modality: the input's name.

    Raises:
        InputError: no image input of that name.
        ConfigError: a size that the adapter cannot take.
    """
    image = model.config.inputs.get(modality) if isinstance(model, Perceiver) else None
    if not isinstance(image, Image):
        raise InputError(f"inputs[{modality!r}]: expected an Image to resize, got {type(image).__name__}")
    position = _pinned(image.position, image.grid)
    new = dataclasses.replace(image, shape=(height, width, image.shape[2]), position=position)
    config = dataclasses.replace(model.config, inputs={**model.config.inputs, modality: new})
    arrays = {name: np.asarray(value) for name, value in weights(model).items()}
    table = _table(image.position, f"adapters.{modality}.embed.position")
    if table is not None:
        arrays[table] = resize_table(arrays[table], image.grid, new.grid)
    return with_weights(config, arrays, "resized model")


def resize_table(table: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Interpolate a table of positions.

    table: float32 [old rows * old columns, c], row by row. Returns float32 [new rows * new columns, c].
    """
    grid = table.reshape(*old, -1).astype(np.float64)
    down, across = (_cubic(a, b) for a, b in zip(old, new, strict=True))
    return np.einsum("ia,jb,abc->ijc", down, across, grid).reshape(-1, table.shape[-1]).astype(np.float32)


def _cubic(old: int, new: int) -> np.ndarray:
    """Weights [new, old] of cubic interpolation between cell centres; beyond the border the last cell repeats."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(places).astype(int)
    weights_of = np.zeros((new, old))
    for tap in range(-1, 3):
        distance = np.abs(places - (first + tap))
        np.add.at(weights_of, (np.arange(new), np.clip(first + tap, 0, old - 1)), _kernel(distance))
    return weights_of


def _kernel(x: np.ndarray) -> np.ndarray:
    """Keys (1981), Cubic convolution interpolation for digital image processing, for 0 <= x <= 2."""
    a = SHARPNESS
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, far)


def _pinned(position: Position, grid: tuple[int, int]) -> Position:
    """The position with its frequencies written down, where they would follow the grid."""
    if isinstance(position, Projected | Refined):
        return dataclasses.replace(position, position=_pinned(position.position, grid))
    if isinstance(position, Fourier) and position.max_resolution is None:
        return dataclasses.replace(position, max_resolution=tuple(float(n) for n in grid))
    return position


def _table(position: Position, path: str) -> str | None:
    """Where the table of a learned position is, if there is one."""
    if isinstance(position, Projected | Refined):
        return _table(position.position, f"{path}.position")
    return f"{path}.table" if isinstance(position, Learned) else None
