"""How a chunk of future actions is answered: as numbers, in bins, or by a flow. One query asks for each future step.

What is learned from a chunk, and how one is chosen, is in `perceiver.control.actions`.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import check_statistics
from perceiver.attention import Block, Stack
from perceiver.config import preprocessing_field
from perceiver.decoders.heads import Head, LinearHead
from perceiver.decoders.queries import Query, Slots
from perceiver.errors import ConfigError, InputError
from perceiver.positions import Fourier
from perceiver.tokens import Tokens
from perceiver.typing import Array, Float, Int


class ActionHead(Head):
    """The next `horizon` actions of `dims` numbers each."""

    horizon: int
    dims: int

    def _check(self) -> None:
        kind = type(self).__name__
        if self.horizon < 1 or self.dims < 1:
            raise ConfigError(f"{kind} needs a horizon and dims of at least 1, got {self.horizon} and {self.dims}")


@dataclasses.dataclass(frozen=True)
class Chunk(ActionHead):
    """The next `horizon` actions of `dims` numbers, [b, horizon, dims]: one query per future step.

    mean, std: statistics of the actions; empty for none.
    """

    horizon: int
    dims: int
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        self._check()
        check_statistics("Chunk", self.dims, self.mean, self.std)

    @property
    def query(self) -> Query:
        """See Head."""
        return ActionSlots(self.horizon)

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.dims, self.mean, self.std, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class BinnedChunk(ActionHead):
    """Logits over `bins` intervals of equal width for each number of each step (RT-1, arXiv 2212.06817).

    The answer is [b, horizon, dims, bins]. low, high: the ends of each number's range, in its own unit; what lies
    outside counts to the outermost bin.
    """

    horizon: int
    dims: int
    low: tuple[float, ...] = preprocessing_field()
    high: tuple[float, ...] = preprocessing_field()
    bins: int = 256

    def __post_init__(self) -> None:
        self._check()
        if self.bins < 2:
            raise ConfigError(f"BinnedChunk.bins must be at least 2, got {self.bins}")
        fits = len(self.low) == len(self.high) == self.dims
        if not fits or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"BinnedChunk: expected {self.dims} pairs of low < high, got {self.low} and {self.high}")

    @property
    def query(self) -> Query:
        """See Head."""
        return ActionSlots(self.horizon)

    def build(self, channels: int, *, dtype, rngs) -> "BinnedHead":
        """See Head."""
        return BinnedHead(self, channels, dtype=dtype, rngs=rngs)

    def bins_of(self, actions: Float[Array, "*n d"]) -> Int[Array, "*n d"]:
        """The bin that each number of some actions falls into."""
        low, width = self._scale()
        return jnp.clip(jnp.floor((actions - low) / width), 0, self.bins - 1).astype(jnp.int32)

    def centres(self, bins: Int[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The actions in the middle of bins."""
        low, width = self._scale()
        return low + (bins.astype(jnp.float32) + 0.5) * width

    def _scale(self) -> tuple[Array, Array]:
        low, high = jnp.asarray(self.low, jnp.float32), jnp.asarray(self.high, jnp.float32)
        return low, (high - low) / self.bins


class BinnedHead(nnx.Module):
    """See BinnedChunk."""

    def __init__(self, config: BinnedChunk, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.shape = (config.dims, config.bins)
        self.linear = nnx.Linear(channels, config.dims * config.bins, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b q c"], tables: Mapping[str, Array]) -> Float[Array, "b q d n"]:
        """[b, q, c] -> [b, q, dims, bins] float32."""
        return self.linear(x).astype(jnp.float32).reshape(*x.shape[:2], *self.shape)


@dataclasses.dataclass(frozen=True)
class FlowChunk(ActionHead):
    """The velocity that carries a noisy chunk towards the actions (flow matching, arXiv 2210.02747; pi0, 2410.24164).

    The answer to NoisyActions is [b, horizon, dims], in the actions' deviations per unit of the flow's time. A chunk is
    drawn by following it from noise at time 0 to actions at time 1, which decodes the same latents `steps` times.

    steps: of Euler's method. mean, std: statistics of the actions; empty for none. mixing: the self-attention by which
        the steps of a noisy chunk learn of each other, `depth` layers of it; without any, each step would choose for
        itself among several ways of acting.
    temperature: deviation of the noise that a chunk is drawn from, 1 in training. Less is for models that still carry
        some of the noise into their actions; 0 always starts in its middle, and cannot choose between ways of acting
        that are as far from there.
    """

    horizon: int
    dims: int
    steps: int = 10
    mixing: Block = Block(heads=1)
    depth: int = 1
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._check()
        if self.steps < 1 or self.depth < 0:
            raise ConfigError(f"FlowChunk: expected steps above 0 and a depth, got {self.steps} and {self.depth}")
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"FlowChunk.temperature: expected a deviation, 0 or more, got {self.temperature}")
        check_statistics("FlowChunk", self.dims, self.mean, self.std)

    @property
    def query(self) -> Query:
        """See Head."""
        return NoisyActions(self.horizon, self.dims, mixing=self.mixing, depth=self.depth)

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.dims, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ActionSlots(Slots):
    """Slots that keep their axis even where there is only one: a chunk of one action is still a chunk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """See Query."""
        return (self.count,)


@dataclasses.dataclass(frozen=True)
class NoisyActions(Query):
    """One query per future step, made of a noisy chunk of actions.

    `at`: floating [b, horizon, dims + 1], needed: each step's noisy action, in deviations, and behind it the time of
    the flow in [0, 1].
    width: None takes the latents' width. mixing, depth: see FlowChunk.
    """

    horizon: int
    dims: int
    width: int | None = None
    mixing: Block = Block(heads=1)
    depth: int = 1

    def channels(self, latent_channels: int, inputs: Mapping[str, int]) -> int:
        """See Query."""
        return latent_channels if self.width is None else self.width

    def build(self, latent_channels, inputs, *, dtype, rngs) -> "NoisyQueries":
        """See Query."""
        return NoisyQueries(self, self.channels(latent_channels, inputs), dtype=dtype, rngs=rngs)


TIME = Fourier(bands=16, max_resolution=(32.0,))
"""Features of the flow's time: the finest turns 16 times from noise to actions."""


class NoisyQueries(nnx.Module):
    """See NoisyActions."""

    def __init__(self, config: NoisyActions, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.slots = ActionSlots(config.horizon, width).build(width, {}, dtype=dtype, rngs=rngs)
        self.time = TIME.build((1,), rngs)
        self.project = nnx.Linear(config.dims + TIME.channels(1), width, dtype=dtype, rngs=rngs)
        depth, mixing = config.depth, config.mixing
        self.mixing = Stack(width, depth, mixing, remat=False, dtype=dtype, rngs=rngs) if depth else None

    def __call__(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """[b, horizon, c]."""
        expected = (batch, self.config.horizon, self.config.dims + 1)
        if at is None or at.shape != expected or not jnp.issubdtype(at.dtype, jnp.floating):
            got = "none" if at is None else f"{np.dtype(at.dtype)} {at.shape}"
            raise InputError(
                f"expected noisy actions and the flow's time, floating {expected}, as the query, got {got}"
            )
        noisy, time = at[..., :-1].astype(jnp.float32), at[..., -1:].astype(jnp.float32)
        features = jnp.concatenate([noisy, self.time(2.0 * time - 1.0)], axis=-1)
        queries = self.slots(batch, None, tokens).values + self.project(features)
        return Tokens(queries if self.mixing is None else self.mixing(queries))
