"""How an answer looks: decoded queries [b, q, c] to classes, fields, tokens, embeddings, numbers or actions.

Every head gives float32. A head's module is called as `module(x, tables)`, where `tables` holds the embedding of
each text input for heads that are tied to one.
"""

import abc
import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx

from perceiver.adapters.base import check_statistics
from perceiver.config import preprocessing_field, suggestion
from perceiver.decoders.queries import Query, Slots
from perceiver.errors import ConfigError
from perceiver.typing import Array, Float


class Head(abc.ABC):
    """The declaration of a kind of answer."""

    @property
    def query(self) -> Query | None:
        """The queries that go without saying with this head, if any."""
        return None

    @abc.abstractmethod
    def build(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
        """The module, for decoded queries of the given width."""


class LinearHead(nnx.Module):
    """One linear map, then the statistics of the target, so that answers come in the target's own units."""

    def __init__(
        self,
        channels: int,
        width: int,
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = mean, std
        self.linear = nnx.Linear(channels, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b q c"], tables: Mapping[str, Array]) -> Float[Array, "b q o"]:
        """[b, q, c] -> [b, q, width] float32."""
        return self.scaled(self.linear(x))

    def scaled(self, y: Float[Array, "b q o"]) -> Float[Array, "b q o"]:
        """What the linear map gives, in the target's own units, float32."""
        y = y.astype(jnp.float32)
        if not self.mean:
            return y
        return y * jnp.asarray(self.std, jnp.float32) + jnp.asarray(self.mean, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Classes(Head):
    """Logits over `count` classes, one set per query; one for the whole input unless another query is declared.

    names: what the classes are called, for answers to people; empty for none.
    """

    count: int
    names: tuple[str, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        if self.count < 2 or len(self.names) not in (0, self.count):
            raise ConfigError(
                f"Classes: expected at least 2 and as many names, got {self.count}, {len(self.names)} names"
            )

    @property
    def query(self) -> Query:
        """See Head."""
        return Slots(1)

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.count, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Dense(Head):
    """A field: `channels` numbers at every query, such as the pixels of a picture or the flow at a point."""

    channels: int

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.channels, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Flow(Head):
    """Optical flow in pixels at every query: (to the right, downwards).

    scale: pixels per unit of the network's output. Perceiver IO divides by 100 inside and multiplies by 20 outside.
    """

    scale: float = 0.2

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, 2, (0.0, 0.0), (self.scale, self.scale), dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class SoundPatches(Head):
    """`patch` consecutive samples of a waveform at every query, in [-1, 1]. sample_rate: Hz."""

    patch: int
    sample_rate: int = preprocessing_field()

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.patch, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Regression(Head):
    """`dims` numbers in the target's own units, one vector per query (one by default).

    mean, std: statistics of the target on the training data; empty for none.
    """

    dims: int
    mean: tuple[float, ...] = preprocessing_field(default=())
    std: tuple[float, ...] = preprocessing_field(default=())

    def __post_init__(self) -> None:
        check_statistics("Regression", self.dims, self.mean, self.std)

    @property
    def query(self) -> Query:
        """See Head."""
        return Slots(1)

    def build(self, channels: int, *, dtype, rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, self.dims, self.mean, self.std, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Embedding(Head):
    """A vector of length 1 in a space that modalities share, and the learned scale (and bias) of its similarities.

    channels: width. scale: the similarity's factor at the start (1 / temperature); bias: its offset at the start.
    candidates: texts that an answer to people is looked up among; empty for none.
    """

    channels: int
    scale: float = 10.0
    bias: float = 0.0
    candidates: tuple[str, ...] = preprocessing_field(default=())

    @property
    def query(self) -> Query:
        """See Head."""
        return Slots(1)

    def build(self, channels: int, *, dtype, rngs) -> "EmbeddingHead":
        """See Head."""
        return EmbeddingHead(self, channels, dtype=dtype, rngs=rngs)


class EmbeddingHead(nnx.Module):
    """See Embedding. `log_scale` and `bias` belong to the objective that compares the embeddings."""

    def __init__(self, config: Embedding, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.linear = nnx.Linear(channels, config.channels, dtype=dtype, rngs=rngs)
        self.log_scale = nnx.Param(jnp.log(jnp.asarray(config.scale, jnp.float32)))
        self.bias = nnx.Param(jnp.asarray(config.bias, jnp.float32))

    def __call__(self, x: Float[Array, "b q c"], tables: Mapping[str, Array]) -> Float[Array, "b q o"]:
        """[b, q, c] -> [b, q, channels] float32 of Euclidean length 1; a zero vector stays zero."""
        y = self.linear(x).astype(jnp.float32)
        return y / jnp.sqrt(jnp.maximum(jnp.square(y).sum(axis=-1, keepdims=True), 1e-12))


@dataclasses.dataclass(frozen=True)
class TokenLogits(Head):
    """Logits over a vocabulary at every query.

    tied_to: name of the text input whose embedding is the output matrix (plus a trained bias), in which case the
        decoded queries must have that embedding's width; None trains an own matrix of `vocabulary` columns.
    """

    vocabulary: int
    tied_to: str | None = None

    def build(self, channels: int, *, dtype, rngs) -> nnx.Module:
        """See Head."""
        if self.tied_to is None:
            return LinearHead(channels, self.vocabulary, dtype=dtype, rngs=rngs)
        return TiedLogits(self, dtype=dtype)


class TiedLogits(nnx.Module):
    """See TokenLogits. The table is passed at each call: stored twice it would become two parameters."""

    def __init__(self, config: TokenLogits, *, dtype: jnp.dtype):
        self.config = config
        self.dtype = dtype
        self.bias = nnx.Param(jnp.zeros((config.vocabulary,), jnp.float32))

    def __call__(self, x: Float[Array, "b q c"], tables: Mapping[str, Array]) -> Float[Array, "b q v"]:
        """[b, q, c] -> [b, q, vocabulary] float32."""
        name = str(self.config.tied_to)
        if name not in tables:
            raise ConfigError(f"TokenLogits.tied_to: no text input {name!r}; {suggestion(name, tables)}")
        table = tables[name]
        if table.shape != (self.config.vocabulary, x.shape[-1]):
            want = (self.config.vocabulary, x.shape[-1])
            raise ConfigError(f"TokenLogits: expected the embedding of {name!r} to be {want}, it is {table.shape}")
        logits = jnp.einsum("bqc,vc->bqv", x, table.astype(self.dtype), preferred_element_type=jnp.float32)
        return logits + self.bias[...]
