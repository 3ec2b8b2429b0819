"""What every adapter has, and the step they share: values + positions -> Tokens."""

import abc
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.errors import ConfigError, InputError
from perceiver.positions import Position
from perceiver.tokens import Tokens
from perceiver.typing import Array, ArrayLike, Bool, Float


class Adapter(abc.ABC):
    """The declaration of one modality: a frozen dataclass that knows its raw form and builds its module.

    The module is called as `module(raw, mask=None) -> Tokens`. `raw` has a batch axis; `mask` is bool, True = real:
    [b] says which samples have this modality at all, a longer one which elements of a sample are real.
    """

    @property
    @abc.abstractmethod
    def tokens(self) -> int:
        """The most tokens that one sample gives."""

    @property
    @abc.abstractmethod
    def channels(self) -> int:
        """Width of one token."""

    @abc.abstractmethod
    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
        """The module, computing in `dtype` with float32 parameters."""

    @abc.abstractmethod
    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a full raw batch."""

    @abc.abstractmethod
    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Read one sample on the host: the raw array without batch axis, padded to the budget, and its mask.

        Raises:
            InputError: the source cannot be read or does not fit; the message names it.
        """


class Embed(nnx.Module):
    """Join values with their positions, after an optional projection of the values.

    values [b, n, f] and coordinates [n, d] or [b, n, d] in [-1, 1] -> Tokens [b, n, c], positions behind the values,
    or added to them with `add`.
    project: the projection's width. hidden: width of a GELU layer before it; None makes it linear.
    """

    def __init__(
        self,
        features: int,
        project: int | None,
        position: Position,
        shape: Sequence[int],
        *,
        add: bool = False,
        hidden: int | None = None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.add = add
        self.hidden = None if hidden is None else nnx.Linear(features, hidden, dtype=dtype, rngs=rngs)
        self.project = None if project is None else nnx.Linear(hidden or features, project, dtype=dtype, rngs=rngs)
        self.position = position.build(shape, rngs)

    def __call__(self, values: Float[Array, "b n f"], coordinates: Array, mask: Bool[Array, "b n"] | None) -> Tokens:
        """Masked values are set to zero first, so that nothing in them reaches an output or a gradient."""
        values = Tokens(values, mask).cleared().values.astype(self.dtype)
        if self.hidden is not None:
            values = jax.nn.gelu(self.hidden(values))
        if self.project is not None:
            values = self.project(values)
        positions = self.position(coordinates).astype(self.dtype)
        if self.add:
            return Tokens(values + positions, mask)
        positions = jnp.broadcast_to(positions, (*values.shape[:2], positions.shape[-1]))
        return Tokens(jnp.concatenate([values, positions], axis=-1), mask)


def embed_channels(features: int, project: int | None, position: Position, dims: int, add: bool = False) -> int:
    """Width of what Embed gives.

    Raises:
        ConfigError: a position that is to be added has another width than the values.
    """
    width, extra = features if project is None else project, position.channels(dims)
    if not add:
        return width + extra
    if width != extra:
        raise ConfigError(f"add_position: expected a position of {width} channels, as wide as the values, got {extra}")
    return width


def standardise(values: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """(values - mean) / std over the last axis, float32. Empty statistics change nothing."""
    values = values.astype(jnp.float32)
    if not mean:
        return values
    return (values - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def check_statistics(name: str, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ConfigError unless mean and std are both empty or both have `width` entries, with std above 0."""
    if len(mean) != len(std) or len(mean) not in (0, width):
        raise ConfigError(f"{name}: expected {width} means and deviations, got {len(mean)} and {len(std)}")
    if any(value <= 0 for value in std):
        raise ConfigError(f"{name}: every standard deviation must be above 0, got {tuple(std)}")


def host_array(source: Any, dtype: Any = None) -> np.ndarray:
    """What a caller gave in place of a file, as an array.

    Raises:
        InputError: it is not one, such as rows of unequal length.
    """
    try:
        return np.asarray(source, dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected an array, got {type(source).__name__}: {error}") from None


def pad_to(array: ArrayLike, length: int) -> np.ndarray:
    """Zeros behind the first axis of a host array, up to `length`."""
    array = np.asarray(array)
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded
