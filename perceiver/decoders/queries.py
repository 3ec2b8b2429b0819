"""What to ask: learned slots, a grid, points, times, or the inputs' own tokens.

A query's module is called as `module(batch, at, tokens)` and gives Tokens [b, q, c]. `at` selects or places single
queries and means what each class says; None asks them all.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from flax import nnx

from perceiver.config import suggestion
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Fourier, Learned, Position, between, check_extent, grid_at
from perceiver.tokens import Tokens
from perceiver.typing import Array, Float


class Query(abc.ABC):
    """The declaration of a set of queries."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Axes that the answers to the whole set get; () for a single one, None where the count is the caller's."""
        return None

    @property
    def source(self) -> str | None:
        """The modality whose tokens the query reads, if any."""
        return None

    def places(self, size: Sequence[int]) -> Float[Array, "q d"]:
        """Where the whole set would be asked with other counts along its axes: an `at` for the query.

        Raises:
            InputError: a set that has no places between its members, counts that are not positive or too many or few.
        """
        raise InputError(f"expected an output that a Grid asks, to be asked at another size, got {type(self).__name__}")

    @abc.abstractmethod
    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """Width of a query, given the widths of latents and input tokens."""

    @abc.abstractmethod
    def build(self, latent_channels: int, inputs: Mapping[str, int], *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
        """The module."""


@dataclasses.dataclass(frozen=True)
class Slots(Query):
    """Learned vectors, one for each thing asked. `at`: int indices [q] or [b, q] of the slots to ask.

    width: None takes the latents' width. scale: standard deviation at the start.
    """

    count: int = 1
    width: int | None = None
    scale: float = 0.02

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"Slots.count must be at least 1, got {self.count}")
        if self.width is not None and self.width < 1:
            raise ConfigError(f"Slots.width must be at least 1, got {self.width}")

    @property
    def shape(self) -> tuple[int, ...]:
        """See Query."""
        return () if self.count == 1 else (self.count,)

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        return latent_channels if self.width is None else self.width

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "SlotQueries":
        """See Query."""
        return SlotQueries(self, self.channels(latent_channels, inputs), dtype=dtype, rngs=rngs)


class SlotQueries(nnx.Module):
    """See Slots."""

    def __init__(self, config: Slots, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        initial = nnx.initializers.truncated_normal(config.scale)
        self.slots = nnx.Param(initial(rngs.params(), (config.count, width), jnp.float32))

    def __call__(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """[b, q, c]."""
        slots = self.slots[...].astype(self.dtype)
        return _spread(slots if at is None else slots[_indices(at)], batch)


@dataclasses.dataclass(frozen=True)
class Grid(Query):
    """Every cell of a grid, such as the pixels of a picture, row by row.

    `at`: int indices [q] or [b, q] of cells, or floating coordinates [q, d] or [b, q, d] in [-1, 1] anywhere between.
    inclusive: cells from -1 to 1; False ends one step before 1, as the queries that Perceiver IO's autoencoder is
        trained with.
    """

    cells: tuple[int, ...]
    position: Position = Fourier(bands=16)
    project: int | None = None
    inclusive: bool = True

    def __post_init__(self) -> None:
        if not self.cells or min(self.cells) < 1:
            raise ConfigError(f"Grid.cells must be positive, got {self.cells}")
        if not self.inclusive and isinstance(self.position, Learned):
            raise ConfigError("Grid.inclusive: learned positions have no ends to leave out")

    @property
    def shape(self) -> tuple[int, ...]:
        """See Query."""
        return self.cells

    def places(self, size: Sequence[int]) -> Float[Array, "q d"]:
        """See Query: over the same extent. Of n times as many every n-th is a declared one, where not `inclusive`."""
        if len(size) != len(self.cells) or min(size) < 1:
            raise InputError(f"size: expected {len(self.cells)} positive counts, as of {self.cells}, got {tuple(size)}")
        return grid_at(jnp.arange(math.prod(size)), size, self.inclusive)

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        return self.project or self.position.channels(len(self.cells))

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "PositionQueries":
        """See Query."""
        kind = {"inclusive": self.inclusive, "dtype": dtype, "rngs": rngs}
        return PositionQueries(self.position, self.project, self.cells, None, **kind)


@dataclasses.dataclass(frozen=True)
class AtPoints(Query):
    """Places in metres. `at`: floating coordinates [q, d] or [b, q, d], needed; low, high: the metric extent."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    position: Fourier = Fourier(bands=16, max_resolution=(64.0, 64.0, 64.0))
    project: int | None = None

    def __post_init__(self) -> None:
        check_extent("AtPoints", self.low, self.high)
        if self.position.max_resolution is None or len(self.position.max_resolution) != len(self.low):
            raise ConfigError(f"AtPoints.position needs a max_resolution of {len(self.low)} axes")

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        return self.project or self.position.channels(len(self.low))

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "PositionQueries":
        """See Query."""
        extent = (self.low, self.high)
        return PositionQueries(self.position, self.project, (1,) * len(self.low), extent, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class AtTimes(Query):
    """Moments in seconds. `at`: floating times [q, 1] or [b, q, 1], needed; 0 to `duration` becomes [-1, 1]."""

    duration: float
    position: Fourier = Fourier(bands=16, max_resolution=(64.0,))
    project: int | None = None

    def __post_init__(self) -> None:
        check_extent("AtTimes", (0.0,), (self.duration,))
        if self.position.max_resolution is None or len(self.position.max_resolution) != 1:
            raise ConfigError("AtTimes.position needs a max_resolution of one axis")

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        return self.project or self.position.channels(1)

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "PositionQueries":
        """See Query."""
        extent = ((0.0,), (self.duration,))
        return PositionQueries(self.position, self.project, (1,), extent, dtype=dtype, rngs=rngs)


class PositionQueries(nnx.Module):
    """Positions, optionally projected, as queries. With an extent `at` is metric; without one it is a grid's."""

    def __init__(
        self,
        position: Position,
        project: int | None,
        cells: Sequence[int],
        extent: tuple[tuple[float, ...], tuple[float, ...]] | None,
        *,
        inclusive: bool = True,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.cells = tuple(cells)
        self.inclusive = inclusive
        self.extent = extent
        self.dtype = dtype
        self.position = position.build(self.cells, rngs)
        width = position.channels(len(self.cells))
        self.project = None if project is None else nnx.Linear(width, project, dtype=dtype, rngs=rngs)

    def __call__(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """[b, q, c]."""
        values = self.position(self._coordinates(at)).astype(self.dtype)
        return _spread(values if self.project is None else self.project(values), batch)

    def _coordinates(self, at: Array | None) -> Array:
        dims = len(self.cells)
        if at is None:
            if self.extent is not None:
                raise InputError(f"expected coordinates [q, {dims}] or [b, q, {dims}] as the query, got none")
            return grid_at(jnp.arange(math.prod(self.cells)), self.cells, self.inclusive)
        if not jnp.issubdtype(at.dtype, jnp.floating):
            if self.extent is not None:
                raise InputError(f"expected floating coordinates as the query, got {at.dtype}")
            return grid_at(at, self.cells, self.inclusive)
        if at.ndim not in (2, 3) or at.shape[-1] != dims:
            raise InputError(f"expected coordinates [q, {dims}] or [b, q, {dims}] as the query, got {at.shape}")
        return at if self.extent is None else between(at, *self.extent)


@dataclasses.dataclass(frozen=True)
class FromTokens(Query):
    """One query per input token of a modality (optical flow, segmentation of a cloud). `at`: int [q] or [b, q].

    cells: the grid that the tokens of a full input form, which answers then take; None leaves them in a row.
    """

    modality: str
    project: int | None = None
    cells: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """See Query."""
        return self.cells

    @property
    def source(self) -> str:
        """See Query."""
        return self.modality

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        if self.modality not in inputs:
            raise ConfigError(f"FromTokens: no input {self.modality!r}; {suggestion(self.modality, inputs)}")
        return self.project or inputs[self.modality]

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "TokenQueries":
        """See Query."""
        self.channels(latent_channels, inputs)
        return TokenQueries(self, inputs[self.modality], dtype=dtype, rngs=rngs)


class TokenQueries(nnx.Module):
    """See FromTokens."""

    def __init__(self, config: FromTokens, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        project = config.project
        self.project = None if project is None else nnx.Linear(width, project, dtype=dtype, rngs=rngs)

    def __call__(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """[b, q, c], with the tokens' own mask."""
        if self.config.modality not in tokens:
            raise InputError(f"expected the input {self.config.modality!r}, whose tokens are the queries; it is absent")
        chosen = tokens[self.config.modality]
        values, mask = chosen.values, chosen.mask
        cells = self.config.cells
        if at is None and cells is not None and values.shape[1] != math.prod(cells):
            raise InputError(f"expected the tokens of a full grid of {cells}, got {values.shape[1]}")
        if at is not None:
            if at.ndim == 2 and at.shape[0] not in (1, batch):
                raise InputError(f"expected indices of a batch of {batch} as the query, got {at.shape}")
            at = jnp.broadcast_to(_indices(at), (batch, at.shape[-1]))
            values = jnp.take_along_axis(values, at[..., None], axis=1)
            mask = None if mask is None else jnp.take_along_axis(mask, at, axis=1)
        return Tokens(values if self.project is None else self.project(values), mask)


@dataclasses.dataclass(frozen=True)
class WithInput(Query):
    """Grid queries with the input's own values put before their positions, cell by cell.

    modality: the input, whose tokens lie on the same grid. width: how many of a token's first channels to take, which
    leaves its own position out. `at`: int [q] or [b, q], or None.
    """

    modality: str
    width: int
    grid: Grid

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"WithInput.width must be at least 1, got {self.width}")

    @property
    def shape(self) -> tuple[int, ...]:
        """See Query."""
        return self.grid.shape

    @property
    def source(self) -> str:
        """See Query."""
        return self.modality

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        own = FromTokens(self.modality).channels(latent_channels, inputs)
        if self.width > own:
            raise ConfigError(f"WithInput.width is {self.width}, the tokens of {self.modality!r} have {own} channels")
        return self.width + self.grid.channels(latent_channels, inputs)

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "InputQueries":
        """See Query."""
        self.channels(latent_channels, inputs)
        return InputQueries(self, latent_channels, inputs, dtype=dtype, rngs=rngs)


class InputQueries(nnx.Module):
    """See WithInput."""

    def __init__(self, config: WithInput, latent_channels: int, inputs: Mapping[str, int], *, dtype, rngs: nnx.Rngs):
        kind = {"dtype": dtype, "rngs": rngs}
        self.width = config.width
        self.values = FromTokens(config.modality).build(latent_channels, inputs, **kind)
        self.places = config.grid.build(latent_channels, inputs, **kind)

    def __call__(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """[b, q, c], with the tokens' own mask."""
        values = self.values(batch, at, tokens)
        places = self.places(batch, at, tokens)
        if values.values.shape[1] != places.values.shape[1]:
            raise InputError(f"expected {places.values.shape[1]} tokens, one a cell, got {values.values.shape[1]}")
        return Tokens(jnp.concatenate([values.values[..., : self.width], places.values], axis=-1), values.mask)


def _indices(at: Array) -> Array:
    """Check that `at` holds indices."""
    if not jnp.issubdtype(at.dtype, jnp.integer):
        raise InputError(f"expected integer indices [q] or [b, q] as the query, got {at.dtype} {at.shape}")
    return at


def _spread(values: Array, batch: int) -> Tokens:
    """Give queries without a batch axis one."""
    return Tokens(values if values.ndim == 3 else jnp.broadcast_to(values, (batch, *values.shape)))
