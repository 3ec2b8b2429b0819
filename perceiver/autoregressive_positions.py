"""How an autoregressive Perceiver tells places in a text apart: rotary angles, or tables added to the ids' vectors."""

import dataclasses
import enum
import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.errors import ConfigError
from perceiver.positions import Fourier, FourierFeatures, grid, rotary_angles
from perceiver.typing import Array, Float, Int

SCALE = 0.02
"""Standard deviation of what is learned, at the start."""


class Order(enum.Enum):
    """How places are counted where the caller does not number them."""

    FORWARD = "0, 1, 2, ... from the start"
    BACKWARD = "0, 1, 2, ... from each text's end (Perceiver AR without positions from the data)"


class Rows(enum.Enum):
    """What a table of positions holds."""

    LEARNED = "trained vectors"
    SINUSOIDAL = "sines, then cosines, of wavelengths from 2 pi to 10,000 times that"
    LINEAR = "the place's number in every channel"
    FOURIER = "Fourier features of as many bands as fit"


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotate queries and keys by their places (2104.09864 with the spacing of Perceiver AR, 2202.07765).

    share: of each head's channels, the first ones, rounded down to an even number. heads: share of the heads, the first
    ones, rounded down. max_wavelength: the longest, over 2 pi. ahead: a latent stands at the place it foretells, one
    behind what it reads.
    """

    share: float = 0.5
    heads: float = 1.0
    max_wavelength: float = 8192.0
    ahead: bool = False

    def __post_init__(self) -> None:
        for name in ("share", "heads"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"Rotary.{name}: expected above 0 and up to 1, got {getattr(self, name)}")
        if not self.max_wavelength > 0.0:
            raise ConfigError(f"Rotary.max_wavelength: expected above 0, got {self.max_wavelength}")

    def rotated(self, width: int) -> int:
        """Channels that are rotated, of a head of so many."""
        return math.floor(width * self.share / 2) * 2

    def angles(self, places: Int[Array, "b n"], width: int, heads: int) -> Float[Array, "b n h half"]:
        """For `positions.rotate`. width: of one head. What is not rotated has the angle 0."""
        turned = rotary_angles(places, self.rotated(width), self.max_wavelength)[:, :, None]
        return jnp.where(jnp.arange(heads)[:, None] < math.floor(self.heads * heads), turned, 0.0)


@dataclasses.dataclass(frozen=True)
class Table:
    """Add to each id's vector that of its place.

    rows: places along each axis; with several axes their vectors are summed, and the caller numbers the places.
    """

    rows: tuple[int, ...]
    holds: Rows = Rows.LEARNED

    def __post_init__(self) -> None:
        if not self.rows or min(self.rows) < 1:
            raise ConfigError(f"Table.rows: expected at least one axis of at least 1 row, got {self.rows}")

    def build(self, width: int, rngs: nnx.Rngs) -> "TableLookup":
        """The module, for vectors of this width."""
        return TableLookup(self, width, rngs)


class TableLookup(nnx.Module):
    """See Table. Only learned rows are parameters."""

    def __init__(self, config: Table, width: int, rngs: nnx.Rngs):
        self.config, self.width = config, width
        initial = nnx.initializers.truncated_normal(SCALE)
        learned = config.rows if config.holds is Rows.LEARNED else ()
        self.tables = nnx.List([nnx.Param(initial(rngs.params(), (rows, width), jnp.float32)) for rows in learned])

    def __call__(self, places: Int[Array, "b n axes"]) -> Float[Array, "b n c"]:
        """Float32; places outside are clamped."""
        found = jnp.zeros((*places.shape[:2], self.width), jnp.float32)
        for axis, rows in enumerate(self.config.rows):
            known = self.tables[axis][...] if self.tables else fixed_rows(self.config.holds, rows, self.width)
            found = found + known[jnp.clip(places[..., axis], 0, rows - 1)]
        return found


def fixed_rows(holds: Rows, rows: int, width: int) -> Float[Array, "n c"]:
    """A table that is not learned, float32 [rows, width]; half of the channels are sines.

    Raises:
        ConfigError: an odd width, or learned rows.
    """
    if width % 2:
        raise ConfigError(f"Table: sines and cosines need an even width, got {width}")
    places = np.arange(rows)[:, None]
    if holds is Rows.SINUSOIDAL:
        shrinking = np.exp(np.arange(width // 2) * -(np.log(10_000.0) / max(width // 2 - 1, 1)))
        return jnp.asarray(np.concatenate([np.sin(places * shrinking), np.cos(places * shrinking)], 1), jnp.float32)
    if holds is Rows.LINEAR:
        return jnp.broadcast_to(jnp.asarray(places, jnp.float32), (rows, width))
    if holds is Rows.FOURIER:
        return FourierFeatures(Fourier(width // 2, concatenate=False), (float(rows),))(grid((rows,)))
    raise ConfigError("Table: learned rows have no formula")


def counted(order: Order, lengths: Int[Array, "b"], count: int) -> Int[Array, "b n"]:
    """Numbers of the places of texts that fill `lengths` of `count` columns. Padding has numbers that mean nothing."""
    columns = jnp.arange(count)
    if order is Order.FORWARD:
        return jnp.broadcast_to(columns, (lengths.shape[0], count))
    return count - 1 - (columns - lengths[:, None]) % count
