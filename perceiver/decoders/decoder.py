"""One question put to the latents: queries, a cross-attend, a head."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Block, CrossAttend
from perceiver.decoders.folding import folded, padded
from perceiver.decoders.heads import Head, LinearHead
from perceiver.decoders.queries import Query
from perceiver.errors import ConfigError, InputError
from perceiver.layout import by_sample
from perceiver.tokens import Tokens
from perceiver.typing import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Output:
    """A named answer of the model.

    head: what an answer looks like. query: what is asked; None takes the head's own.
    cross: the cross-attend from queries to latents. `cross.residual` adds the query to what it finds.
    chunk: the most queries decoded at once; more are decoded in a loop inside the compiled function, in the same
        memory, from the same latents. None decodes all at once.
    trunk: name of a Trunk of the model to use in place of an own cross-attend.
    """

    head: Head
    query: Query | None = None
    cross: Block = Block(heads=1)
    chunk: int | None = None
    trunk: str | None = None

    def __post_init__(self) -> None:
        if self.query is None and self.head.query is None:
            raise ConfigError(f"Output: {type(self.head).__name__} has no query of its own, so declare one")
        if self.chunk is not None and self.chunk < 1:
            raise ConfigError(f"Output.chunk must be at least 1, got {self.chunk}")
        if self.trunk is not None and self.cross != Block(heads=1):
            raise ConfigError(f"Output: the cross-attend is that of the trunk {self.trunk!r}, so leave `cross` out")

    @property
    def asked(self) -> Query:
        """The query in force."""
        query = self.query if self.query is not None else self.head.query
        assert query is not None  # __post_init__ saw to it
        return query

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Axes of the answers to all queries; None where their number is the caller's."""
        return self.asked.shape

    @property
    def source(self) -> str | None:
        """The modality whose tokens are read again, if any."""
        return self.asked.source

    def build(
        self,
        latent_channels: int,
        inputs: Mapping[str, int],
        trunks: "Mapping[str, Trunk] | None" = None,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> "Decoder":
        """The module. inputs: widths of the input tokens by modality."""
        trunk = None if self.trunk is None else (trunks or {})[self.trunk]
        return Decoder(self, latent_channels, inputs, trunk, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A cross-attend, and a linear map behind it, that several outputs share (Perceiver IO's multimodal decoder).

    channels: width of the queries; each output pads its own with learned channels up to it.
    project: width that the heads see; None leaves the queries' own.
    """

    channels: int
    cross: Block = Block(heads=1)
    project: int | None = None

    def __post_init__(self) -> None:
        if self.channels < 1 or (self.project is not None and self.project < 1):
            raise ConfigError(f"Trunk needs widths of at least 1, got {self.channels} and {self.project}")

    def build(self, latent_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "TrunkModule":
        """The module."""
        return TrunkModule(self, latent_channels, dtype=dtype, rngs=rngs)


class TrunkModule(nnx.Module):
    """See Trunk."""

    def __init__(self, config: Trunk, latent_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, project = config.channels, config.project
        self.cross = CrossAttend(width, latent_channels, config.cross, dtype=dtype, rngs=rngs)
        self.project = None if project is None else nnx.Linear(width, project, dtype=dtype, rngs=rngs)

    def __call__(self, queries: Array, tokens: Tokens, *, looking: Array | None, key: jax.Array | None) -> Array:
        """[b, q, channels] to [b, q, project]."""
        decoded = self.cross(queries, tokens, looking=looking, key=key)
        return decoded if self.project is None else self.project(decoded)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """An answer from the mean of the latents, without a query, as in Perceiver 1 (arXiv 2103.03206, section 3.1)."""

    head: Head

    def __post_init__(self) -> None:
        if self.head.query is not None and self.head.query.shape != ():
            kind, count = type(self.head).__name__, self.head.query.shape or "several"
            raise ConfigError(f"Pooled gives one answer, and {kind} has one for each of {count} queries")

    @property
    def shape(self) -> tuple[int, ...]:
        """One answer."""
        return ()

    @property
    def source(self) -> None:
        """None: nothing is read again."""
        return None

    def build(
        self,
        latent_channels: int,
        inputs: Mapping[str, int],
        trunks: Mapping[str, Trunk] | None = None,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> "PooledDecoder":
        """The module."""
        return PooledDecoder(self, latent_channels, dtype=dtype, rngs=rngs)


class PooledDecoder(nnx.Module):
    """Latents [b, n, c] to answers [b, *head shape], float32."""

    def __init__(self, config: Pooled, latent_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.head = config.head.build(latent_channels, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        latents: Float[Array, "b n c"],
        tokens,
        tables,
        at=None,
        *,
        shown=None,
        looking=None,
        trunks=None,
        key=None,
    ) -> Array:
        """See Decoder; there is nothing to choose from."""
        if at is not None or looking is not None:
            raise InputError("expected no query: the answer comes from the mean of the latents")
        among = None if shown is None else shown[..., None]
        return self.head(jnp.mean(latents, axis=1, keepdims=True, where=among), tables)[:, 0]


class Decoder(nnx.Module):
    """Latents [b, n, c] to answers [b, *query shape, *head shape], float32."""

    def __init__(
        self,
        config: Output,
        latent_channels: int,
        inputs: Mapping[str, int],
        trunk: Trunk | None = None,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.dtype = dtype
        width = config.asked.channels(latent_channels, inputs)
        self.query = config.asked.build(latent_channels, inputs, dtype=dtype, rngs=rngs)
        if trunk is None:
            self.cross = CrossAttend(width, latent_channels, config.cross, dtype=dtype, rngs=rngs)
        else:
            if width > trunk.channels:
                raise ConfigError(f"Output: queries of {width} channels do not fit the trunk's {trunk.channels}")
            if width < trunk.channels:
                initial = nnx.initializers.truncated_normal(0.02)
                self.padding = nnx.Param(initial(rngs.params(), (trunk.channels - width,), jnp.float32))
            width = trunk.channels if trunk.project is None else trunk.project
        self.head = config.head.build(width, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        latents: Float[Array, "b n c"],
        tokens: Mapping[str, Tokens],
        tables: Mapping[str, Array],
        at: Array | None = None,
        *,
        shown: Bool[Array, "b n"] | None = None,
        looking: Bool[Array, "b q"] | None = None,
        trunks: "Mapping[str, TrunkModule] | None" = None,
        key: jax.Array | None = None,
    ) -> Array:
        """Decode. at: see the query's class; None asks everything. tokens: the inputs' own, where a query needs them.

        A masked query (padding of the input it comes from) is answered with zeros. One that is False in `looking`
        sees nothing of the latents; what it gets comes from itself and the biases, as in the reference. shown: False
        for latents that no query may look at.
        """
        batch, chunk = latents.shape[0], self.config.chunk
        at = None if at is None else jnp.asarray(at)
        looking = None if looking is None else jnp.asarray(looking)
        trunk = None if self.config.trunk is None else (trunks or {})[self.config.trunk]
        count = self._count(at, tokens)
        source = tokens.get(self.config.source or "")
        if at is None and source is not None and source.values.shape[1] != count:
            raise InputError(
                f"expected {count} tokens, those of a full grid of {self.config.shape}, got {source.values.shape[1]}"
            )
        if looking is not None and (looking.dtype != bool or looking.shape != (batch, count)):
            raise InputError(f"expected a bool mask ({batch}, {count}) of queries, got {looking.dtype} {looking.shape}")
        if chunk is None or count <= chunk:
            out = self._some(Tokens(latents, shown), tokens, tables, at, looking, trunk, key)
        else:
            out = self._chunks(Tokens(latents, shown), tokens, tables, at, looking, trunk, key, count, chunk)
        whole = self.config.shape if at is None else None
        return out if whole is None else out.reshape(batch, *whole, *out.shape[2:])

    def ask(self, batch: int, at: Array | None, tokens: Mapping[str, Tokens]) -> Tokens:
        """The queries [b, q, c], at the trunk's width where there is one."""
        queries = self.query(batch, at, tokens)
        padding = self._padding
        padding = None if padding is None else padding.astype(self.dtype)
        return Tokens(by_sample(padded(queries.values, padding)), queries.mask)

    @property
    def _padding(self) -> Array | None:
        return self.padding[...] if hasattr(self, "padding") else None

    def _some(self, latents, tokens, tables, at, looking, trunk, key) -> Array:
        queries = self.ask(latents.values.shape[0], at, tokens)
        cross = self.cross if trunk is None else trunk
        decoded = by_sample(cross(queries.values, latents, looking=looking, key=key))
        return Tokens(self.head(decoded, tables), queries.mask).cleared().values

    def _folded(self, latents: Array, trunk: "TrunkModule | None") -> Callable[[Array], Array] | None:
        """Queries to answers as in `folding`, for heads that are one linear map."""
        head, cross, maps = self.head, self.cross if trunk is None else trunk.cross, []
        if not isinstance(head, LinearHead):
            return None
        if trunk is not None and trunk.project is not None:
            maps.append(trunk.project)
        fast = folded(cross, latents, self._padding, [*maps, head.linear])
        return lambda queries: head.scaled(fast(queries))

    def _count(self, at: Array | None, tokens: Mapping[str, Tokens]) -> int:
        if at is not None:
            return at.shape[_axis(at)]
        if self.config.shape is not None:
            return math.prod(self.config.shape)
        if self.config.source is not None and self.config.source in tokens:
            return tokens[self.config.source].values.shape[1]
        return 0  # the query's module says what is missing

    def _chunks(self, latents, tokens, tables, at, looking, trunk, key, count: int, chunk: int) -> Array:
        """Decode `chunk` queries at a time; the last chunk is filled with repeats that are thrown away."""
        plain = key is None and looking is None and latents.mask is None
        fast = self._folded(latents.values, trunk) if plain else None
        at = jnp.arange(count) if at is None else at
        axis = _axis(at)
        pieces = -(-count // chunk)
        rows = jnp.minimum(jnp.arange(pieces * chunk), count - 1).reshape(pieces, chunk)

        def piece(inputs):
            number, chosen = inputs
            here = None if key is None else jax.random.fold_in(key, number)
            seeing = None if looking is None else jnp.take(looking, chosen, axis=1)
            some = jnp.take(at, chosen, axis=axis)
            if fast is not None:
                queries = self.query(latents.values.shape[0], some, tokens)
                return Tokens(fast(queries.values), queries.mask).cleared().values
            return self._some(latents, tokens, tables, some, seeing, trunk, here)

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
