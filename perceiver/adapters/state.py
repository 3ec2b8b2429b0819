"""Robot state and other plain vectors: every time step is a token."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter, Embed, check_statistics, embed_channels, host_array, pad_to, standardise
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Learned, Position, grid_at
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array


@dataclasses.dataclass(frozen=True)
class State(Adapter):
    """Vectors [b, t, dims], floating point, newest last.

    dims: numbers in one vector. history: the most time steps of one sample.
    project: linear projection to this width. position: one-dimensional, over the history.
    mean, std: statistics of the training data, in the vector's own units, applied inside the model; empty for none.

    Mask: [b] for presence or [b, t] for single time steps.
    """

    dims: int
    history: int = 1
    project: int | None = 64
    position: Position = Learned(width=16)
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        if self.dims < 1 or self.history < 1:
            raise ConfigError(f"State needs dims and history of at least 1, got {self.dims} and {self.history}")
        check_statistics("State", self.dims, self.mean, self.std)

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.history

    @property
    def channels(self) -> int:
        """See Adapter."""
        return embed_channels(self.dims, self.project, self.position, 1)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "StateTokens":
        """See Adapter."""
        return StateTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, self.history, self.dims), jnp.float32)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Take vectors [t, dims] or [dims]; padded to the history, mask [t]."""
        vectors = np.atleast_2d(host_array(source, np.float32))
        check_array(vectors, ("t", self.dims), "f")
        if len(vectors) > self.history:
            raise InputError(f"expected at most {self.history} time steps, got {len(vectors)}")
        if not np.isfinite(vectors).all():
            raise InputError(f"expected finite numbers, got {vectors[~np.isfinite(vectors)][0]}")
        return pad_to(vectors, self.history), np.arange(self.history) < len(vectors)


class StateTokens(nnx.Module):
    """See State."""

    def __init__(self, config: State, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(config.dims, config.project, config.position, (config.history,), dtype=dtype, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """[b, t, dims] -> Tokens [b, t, channels]."""
        check_array(raw, ("b", "t", self.config.dims))
        if raw.shape[1] > self.config.history:
            raise InputError(f"expected at most {self.config.history} time steps, got {raw.shape[1]}")
        values = standardise(raw, self.config.mean, self.config.std)
        coordinates = grid_at(jnp.arange(raw.shape[1]), (self.config.history,))
        return self.embed(values, coordinates, presence(mask, *raw.shape[:2]))
