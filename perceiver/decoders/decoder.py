"""One question put to the latents: queries, a cross-attend, a head."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Block, CrossAttend
from perceiver.decoders.heads import Head
from perceiver.decoders.queries import Query
from perceiver.errors import ConfigError, InputError
from perceiver.tokens import Tokens
from perceiver.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Output:
    """A named answer of the model.

    head: what an answer looks like. query: what is asked; None takes the head's own.
    cross: the cross-attend from queries to latents. `cross.residual` adds the query to what it finds.
    chunk: the most queries decoded at once; more are decoded in a loop inside the compiled function, in the same
        memory, from the same latents. None decodes all at once.
    """

    head: Head
    query: Query | None = None
    cross: Block = Block(heads=1)
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.query is None and self.head.query is None:
            raise ConfigError(f"Output: {type(self.head).__name__} has no query of its own, so declare one")
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(f"Output.chunk must be at least 1, got {self.chunk}")

    @property
    def asked(self) -> Query:
        """The query in force."""
        query = self.query if self.query is not None else self.head.query
        assert query is not None  # __post_init__ saw to it
        return query

    def build(self, latent_channels: int, inputs: Mapping[str, int], *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "Decoder":
        """The module. inputs: widths of the input tokens by modality."""
        return Decoder(self, latent_channels, inputs, dtype=dtype, rngs=rngs)


class Decoder(nnx.Module):
    """Latents [b, n, c] to answers [b, *query shape, *head shape], float32."""

    def __init__(
        self,
        config: Output,
        latent_channels: int,
        inputs: Mapping[str, int],
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.config = config
        width = config.asked.channels(latent_channels, inputs)
        self.query = config.asked.build(latent_channels, inputs, dtype=dtype, rngs=rngs)
        self.cross = CrossAttend(width, latent_channels, config.cross, dtype=dtype, rngs=rngs)
        self.head = config.head.build(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        latents: Float[Array, "b n c"],
        tokens: Mapping[str, Tokens],
        tables: Mapping[str, Array],
        at: Array | None = None,
        *,
        key: jax.Array | None = None,
    ) -> Array:
        """Decode. at: see the query's class; None asks everything. tokens: the inputs' own, where a query needs them.

        A masked query (padding of the input it comes from) is answered with zeros.
        """
        batch, chunk = latents.shape[0], self.config.chunk
        at = None if at is None else jnp.asarray(at)
        count = self._count(at, tokens)
        if chunk is None or count <= chunk:
            out = self._some(latents, tokens, tables, at, key)
        else:
            out = self._chunks(latents, tokens, tables, at, key, count, chunk)
        whole = self.config.asked.shape if at is None else None
        return out if whole is None else out.reshape(batch, *whole, *out.shape[2:])

    def _some(self, latents, tokens, tables, at, key) -> Array:
        queries = self.query(latents.shape[0], at, tokens)
        decoded = self.cross(queries.values, Tokens(latents), key=key)
        return Tokens(self.head(decoded, tables), queries.mask).cleared().values

    def _count(self, at: Array | None, tokens: Mapping[str, Tokens]) -> int:
        if at is not None:
            return at.shape[_axis(at)]
        asked = self.config.asked
        if asked.shape is not None:
            return math.prod(asked.shape)
        if asked.source is not None and asked.source in tokens:
            return tokens[asked.source].values.shape[1]
        return 0  # the query's module says what is missing

    def _chunks(self, latents, tokens, tables, at, key, count: int, chunk: int) -> Array:
        """Decode `chunk` queries at a time; the last chunk is filled with repeats that are thrown away."""
        at = jnp.arange(count) if at is None else at
        axis = _axis(at)
        pieces = -(-count // chunk)
        rows = jnp.minimum(jnp.arange(pieces * chunk), count - 1).reshape(pieces, chunk)

        def piece(inputs):
            number, chosen = inputs
            here = None if key is None else jax.random.fold_in(key, number)
            return self._some(latents, tokens, tables, jnp.take(at, chosen, axis=axis), here)

        out = jax.lax.map(piece, (jnp.arange(pieces), rows))
        out = jnp.moveaxis(out, 0, 1)
        return out.reshape(out.shape[0], pieces * chunk, *out.shape[3:])[:, :count]


def _axis(at: Array) -> int:
    """The axis of `at` that counts queries: the last of indices, the one before the coordinates otherwise."""
    if jnp.issubdtype(at.dtype, jnp.integer) and at.ndim in (1, 2):
        return at.ndim - 1
    if jnp.issubdtype(at.dtype, jnp.floating) and at.ndim in (2, 3):
        return at.ndim - 2
    raise InputError(f"expected integer indices [q] or [b, q], or coordinates [.., q, d], got {at.dtype} {at.shape}")
