"""Where a token is: Fourier features, learned tables and rotary angles over one coordinate convention.

A grid runs from -1 to 1 inclusive along every axis, first axis slowest. Metric coordinates are brought to
[-1, 1] by an extent given in the config.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Float, Int


def grid(shape: Sequence[int]) -> Float[Array, "n d"]:
    """Coordinates of every cell of a grid, in row-major order.

    shape: cells along each of d axes.
    Returns float32 [prod(shape), d] in [-1, 1]; an axis of one cell sits at -1.
    """
    return grid_at(jnp.arange(math.prod(shape)), shape)


def grid_at(indices: Int[Array, "*n"], shape: Sequence[int], inclusive: bool = True) -> Float[Array, "*n d"]:
    """Coordinates of single cells, by row-major index: bit for bit the rows of `grid`.

    inclusive: False ends one step before 1 along every axis, at -1 + 2 i / n, where Perceiver IO puts subsampled
        queries (`BasicDecoder` of the release).
    """
    places = jnp.unravel_index(indices, tuple(shape))
    axes = [jnp.asarray(_linspace(-1.0, 1.0, count) if inclusive else _steps(count)) for count in shape]
    return jnp.stack([axis[place] for axis, place in zip(axes, places, strict=True)], axis=-1)


@functools.lru_cache(maxsize=1024)
def _linspace(first: float, last: float, count: int) -> np.ndarray:
    """Float32 [count], bit for bit what jnp.linspace gives outside of a jit, as in the references.

    XLA rounds the same formula differently inside of a larger program, so it is compiled alone, even while tracing.
    """
    return _alone(lambda a, b: jnp.linspace(a, b, count, dtype=jnp.float32), np.float32(first), np.float32(last))


@functools.lru_cache(maxsize=1024)
def _steps(count: int) -> np.ndarray:
    """Float32 [count], -1 + 2 i / count, with the reference's division of a row of numbers by one."""
    whole, one = 2 * np.arange(count, dtype=np.int32), np.asarray([count], np.int32)
    return np.float32(-1) + _alone(jnp.true_divide, whole, one)


def _alone(function: Callable[..., Array], *arguments: np.ndarray | np.float32) -> np.ndarray:
    """Compile and call a function on its own, whatever is being traced around it."""
    return np.asarray(jax.jit(function).lower(*arguments).compile()(*arguments))


def between(metric: Float[Array, "*b d"], low: Sequence[float], high: Sequence[float]) -> Float[Array, "*b d"]:
    """Metric coordinates to [-1, 1], by an extent that is declared and never measured on the data.

    low, high: the corners of the extent, in the unit of the coordinates. What lies outside goes past +-1.
    """
    bottom, top = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return (metric - bottom) / (top - bottom) * 2.0 - 1.0


def check_extent(name: str, low: Sequence[float], high: Sequence[float]) -> None:
    """Raise ConfigError unless `low` is below `high` on every axis."""
    if len(low) != len(high) or not all(a < b for a, b in zip(low, high, strict=True)):
        raise ConfigError(f"{name}: expected low < high on every axis, got low {low} and high {high}")


class Position(abc.ABC):
    """How a set of coordinates becomes position channels."""

    @abc.abstractmethod
    def channels(self, dims: int) -> int:
        """Width of the position part of a token, for coordinates of `dims` axes."""

    @abc.abstractmethod
    def build(self, shape: Sequence[int], rngs: nnx.Rngs) -> nnx.Module:
        """A module that takes coordinates [..., n, d] in [-1, 1] and gives channels [..., n, c].

        shape: the grid that the positions cover at most.
        """


@dataclasses.dataclass(frozen=True)
class Fourier(Position):
    """Sines and cosines at linearly spaced frequencies (Perceiver, arXiv 2103.03206, section 3.2).

    bands: frequencies per axis, linspace(1, max_resolution / 2, bands).
    max_resolution: the sampling rate to resolve along each axis; None takes the grid's own shape.
    concatenate: put the raw coordinates before the features.
    sine_only: leave the cosines out.
    """

    bands: int
    max_resolution: tuple[float, ...] | None = None
    concatenate: bool = True
    sine_only: bool = False

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise ConfigError(f"Fourier.bands must be at least 1, got {self.bands}")

    def channels(self, dims: int) -> int:
        """See Position."""
        return dims * self.bands * (1 if self.sine_only else 2) + (dims if self.concatenate else 0)

    def build(self, shape: Sequence[int], rngs: nnx.Rngs) -> "FourierFeatures":
        """See Position."""
        resolution = tuple(shape) if self.max_resolution is None else self.max_resolution
        if len(resolution) != len(shape):
            raise ConfigError(f"Fourier.max_resolution has {len(resolution)} axes, the grid has {len(shape)}")
        return FourierFeatures(self, tuple(float(r) for r in resolution))


class FourierFeatures(nnx.Module):
    """Parameter-free: coordinates [..., n, d] -> [..., n, c], ordered raw, sin of all axes, cos of all axes."""

    def __init__(self, config: Fourier, resolution: tuple[float, ...]):
        self.config = config
        self.resolution = resolution

    def __call__(self, coordinates: Float[Array, "*b n d"]) -> Float[Array, "*b n c"]:
        """Features in float32, computed as sin(pi * (position * frequency)): the order matters at high bands."""
        frequencies = np.stack([_linspace(1.0, resolution / 2, self.config.bands) for resolution in self.resolution])
        position = coordinates.astype(jnp.float32)
        angles = jnp.pi * (position[..., None] * frequencies)
        angles = angles.reshape(*angles.shape[:-2], -1)
        parts = [position] if self.config.concatenate else []
        parts.append(jnp.sin(angles))
        if not self.config.sine_only:
            parts.append(jnp.cos(angles))
        return jnp.concatenate(parts, axis=-1)


@dataclasses.dataclass(frozen=True)
class Learned(Position):
    """A trained table with one row per grid cell, truncated normal with the given standard deviation."""

    width: int
    scale: float = 0.02

    def channels(self, dims: int) -> int:
        """See Position."""
        return self.width

    def build(self, shape: Sequence[int], rngs: nnx.Rngs) -> "LearnedTable":
        """See Position."""
        return LearnedTable(self, tuple(shape), rngs)


class LearnedTable(nnx.Module):
    """Coordinates [..., n, d] -> the row of the nearest cell of the trained grid, [..., n, c]."""

    def __init__(self, config: Learned, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.shape = shape
        initial = nnx.initializers.truncated_normal(config.scale)
        self.table = nnx.Param(initial(rngs.params(), (int(np.prod(shape)), config.width), jnp.float32))

    def __call__(self, coordinates: Float[Array, "*b n d"]) -> Float[Array, "*b n c"]:
        """Float32; a grid other than the trained one takes the nearest rows."""
        if coordinates.shape[-1] != len(self.shape):
            raise InputError(f"expected coordinates of {len(self.shape)} axes, got {coordinates.shape[-1]}")
        counts = jnp.asarray(self.shape)
        places = jnp.round((coordinates + 1.0) / 2.0 * (counts - 1)).astype(jnp.int32)
        places = jnp.clip(places, 0, counts - 1)
        strides = jnp.asarray(np.cumprod([1, *self.shape[:0:-1]])[::-1].copy())
        return self.table[...][(places * strides).sum(-1)]


@dataclasses.dataclass(frozen=True)
class Projected(Position):
    """Another position, brought to `width` channels by a trained linear map."""

    position: Position
    width: int

    def channels(self, dims: int) -> int:
        """See Position."""
        return self.width

    def build(self, shape: Sequence[int], rngs: nnx.Rngs) -> "ProjectedPositions":
        """See Position."""
        return ProjectedPositions(self, shape, rngs)


class ProjectedPositions(nnx.Module):
    """See Projected."""

    def __init__(self, config: Projected, shape: Sequence[int], rngs: nnx.Rngs):
        self.position = config.position.build(shape, rngs)
        self.linear = nnx.Linear(config.position.channels(len(shape)), config.width, rngs=rngs)

    def __call__(self, coordinates: Float[Array, "*b n d"]) -> Float[Array, "*b n c"]:
        """Float32."""
        return self.linear(self.position(coordinates))


@dataclasses.dataclass(frozen=True)
class Refined(Position):
    """Another position, with `layers` trained linear maps added to it one after the other, rectified in between."""

    position: Position
    layers: int

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ConfigError(f"Refined.layers must be at least 1, got {self.layers}")

    def channels(self, dims: int) -> int:
        """See Position."""
        return self.position.channels(dims)

    def build(self, shape: Sequence[int], rngs: nnx.Rngs) -> "RefinedPositions":
        """See Position."""
        return RefinedPositions(self, shape, rngs)


class RefinedPositions(nnx.Module):
    """See Refined."""

    def __init__(self, config: Refined, shape: Sequence[int], rngs: nnx.Rngs):
        width = config.channels(len(shape))
        self.position = config.position.build(shape, rngs)
        self.linears = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(config.layers)])

    def __call__(self, coordinates: Float[Array, "*b n d"]) -> Float[Array, "*b n c"]:
        """Float32."""
        x = self.position(coordinates)
        for number, linear in enumerate(self.linears, start=1):
            x = x + linear(x)
            if number < len(self.linears):
                x = jnp.maximum(x, 0.0)
        return x


def rotary_angles(
    positions: Float[Array, "*b n"], width: int, max_wavelength: float = 10_000.0
) -> Float[Array, "*b n half"]:
    """Rotation angle of each channel pair (RoFormer, arXiv 2104.09864; spacing of Perceiver AR, 2202.07765).

    positions: token positions, any real numbers.
    width: rotated channels, even. The wavelengths run from 2 pi to exactly 2 pi * max_wavelength.
    """
    if width < 2 or width % 2:
        raise ConfigError(f"rotary width must be even and positive, got {width}")
    half = width // 2
    exponents = np.linspace(0, half, half) * 2.0 / width
    frequencies = jnp.asarray(1.0 / max_wavelength**exponents, jnp.float32)
    return positions.astype(jnp.float32)[..., None] * frequencies


def rotate(x: Float[Array, "b n h d"], angles: Float[Array, "b n *h half"]) -> Float[Array, "b n h d"]:
    """Rotate the first 2 * half channels of every head by interleaved pairs (0, 1), (2, 3), ...

    angles: of all heads alike [b, n, half], or of each one [b, n, h, half].
    """
    width = 2 * angles.shape[-1]
    angles = angles[:, :, None] if angles.ndim == 3 else angles
    head, rest = x[..., :width].astype(jnp.float32), x[..., width:]
    even, odd = head[..., 0::2], head[..., 1::2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(head.shape)
    return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)
