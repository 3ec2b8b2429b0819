"""What a Hierarchical Perceiver is made of: groups of tokens, and levels of latents that look within their group.

Grouped arrays are [b, g, n, c]: g groups of n vectors a sample. Groups never look into each other; `Regroup` between
two levels is what brings them together.
"""

import abc
import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.attention import Activation, Attention, Block, Mlp, Stack, dropout, layer_norm, split_key
from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Bool, Float

TABLE = nnx.initializers.lecun_normal()
"""Start of learned tables [n, c]: truncated normal of variance 1 / n, as in the reference."""


class Regroup(enum.Enum):
    """How the vectors of all groups become other groups: [b, g, n, c] to [b, g', g n / g', c]."""

    NEIGHBOURS = "groups are cut up or joined in their order"
    MIXED = "every new group takes vectors from all old ones"

    def __call__(self, x: Float[Array, "b g n c"], groups: int) -> Float[Array, "b g2 n2 c"]:
        """Regroup.

        Raises:
            InputError: the number of vectors is no multiple of `groups`.
        """
        total = x.shape[1] * x.shape[2]
        if total % groups:
            raise InputError(f"expected a multiple of {groups} vectors for {groups} groups, got shape {x.shape}")
        ordered = jnp.swapaxes(x, 1, 2) if self is Regroup.MIXED else x
        return ordered.reshape(x.shape[0], groups, total // groups, x.shape[3])


class Layout(abc.ABC):
    """Which vector of which modality lies where in the groups."""

    @abc.abstractmethod
    def group(self, parts: Mapping[str, Float[Array, "b n c"]]) -> Float[Array, "b g m c"]:
        """All modalities in one array."""

    @abc.abstractmethod
    def ungroup(self, x: Float[Array, "b g m c"]) -> dict[str, Float[Array, "b n c"]]:
        """The inverse: each modality's vectors. Of arrays with another m, what lies where its vectors would be."""


class Grouping(enum.Enum):
    """How modalities share the groups of the first level."""

    SEPARATE = "a group holds one modality, padded with zeros (HiP)"
    TOGETHER = "one group holds all modalities (Perceiver IO)"

    def layout(self, lengths: Mapping[str, int], groups: int) -> Layout:
        """The layout for modalities of these lengths."""
        return Together(lengths) if self is Grouping.TOGETHER else Separate(lengths, groups)


class Together(Layout):
    """One modality after the other in a single group."""

    def __init__(self, lengths: Mapping[str, int]):
        self.lengths = dict(lengths)

    def group(self, parts: Mapping[str, Float[Array, "b n c"]]) -> Float[Array, "b 1 m c"]:
        """See Layout."""
        return jnp.concatenate([parts[name] for name in self.lengths], axis=1)[:, None]

    def ungroup(self, x: Float[Array, "b 1 m c"]) -> dict[str, Float[Array, "b n c"]]:
        """See Layout."""
        ends = np.cumsum(list(self.lengths.values()))
        return {name: x[:, 0, end - n : end] for (name, n), end in zip(self.lengths.items(), ends, strict=True)}


class Separate(Layout):
    """Groups of one modality each, as many as `shares` says, padded with zeros: each group up to the largest."""

    def __init__(self, lengths: Mapping[str, int], groups: int):
        self.lengths = dict(lengths)
        self.counts = dict(zip(lengths, shares(list(lengths.values()), groups), strict=True))
        self.size = max(math.ceil(n / self.counts[name]) for name, n in lengths.items())

    def group(self, parts: Mapping[str, Float[Array, "b n c"]]) -> Float[Array, "b g m c"]:
        """See Layout."""
        return jnp.concatenate([self._pad(name, parts[name]) for name in self.lengths], axis=1)

    def ungroup(self, x: Float[Array, "b g m c"]) -> dict[str, Float[Array, "b n c"]]:
        """See Layout. The padding is cut as if m were the layout's own, by counting from the end."""
        found, first = {}, 0
        for name, count in self.counts.items():
            tail, inner = self._padding(name)
            own = x[:, first : first + count, : x.shape[2] - inner]
            joined = own.reshape(own.shape[0], -1, own.shape[3])
            found[name] = joined[:, : joined.shape[1] - tail]
            first += count
        return found

    def _padding(self, name: str) -> tuple[int, int]:
        own = math.ceil(self.lengths[name] / self.counts[name])
        return own * self.counts[name] - self.lengths[name], self.size - own

    def _pad(self, name: str, part: Array) -> Array:
        tail, inner = self._padding(name)
        padded = jnp.pad(part, ((0, 0), (0, tail), (0, 0)))
        grouped = padded.reshape(part.shape[0], self.counts[name], -1, part.shape[2])
        return jnp.pad(grouped, ((0, 0), (0, 0), (0, inner), (0, 0)))


def shares(lengths: Sequence[int], groups: int) -> list[int]:
    """Groups for each modality: one, and every further one to that which has most vectors per group so far."""
    if len(lengths) > groups:
        raise ConfigError(f"a group holds one modality, so {len(lengths)} modalities need as many groups, got {groups}")
    counts = [1] * len(lengths)
    for _ in range(groups - len(lengths)):
        counts[int(np.argmax([n / count for n, count in zip(lengths, counts, strict=True)]))] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class Level:
    """One level of the hierarchy: latents look at the vectors of their group, then think among themselves.

    groups: number of groups, each with latents of its own. latents, channels: count in each group, and width.
    depth: self-attends after the look; may be 0.
    cross, latent: shapes of the look and of the self-attends.
    train_latents: in training, each group of each sample uses so many of its latents, drawn at random; None uses all.
    remat: recompute self-attends in the backward pass to save memory.
    """

    groups: int
    latents: int
    channels: int
    depth: int
    cross: Block = Block(activation=Activation.SQUARED_RELU)
    latent: Block = Block(heads=8, widening=4, activation=Activation.SQUARED_RELU)
    train_latents: int | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        for name, least in (("groups", 1), ("latents", 1), ("channels", 1), ("depth", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"Level.{name} must be at least {least}, got {getattr(self, name)}")
        if self.train_latents is not None and not 1 <= self.train_latents <= self.latents:
            raise ConfigError(f"Level.train_latents must be in [1, latents = {self.latents}], got {self.train_latents}")

    def build(
        self, in_channels: int, skip_channels: int | None = None, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> "LevelBlock":
        """The module, for vectors of the given width; skip_channels: width of a skip connection, if it gets one."""
        return LevelBlock(self, in_channels, skip_channels, dtype=dtype, rngs=rngs)


class GroupedCrossAttend(nnx.Module):
    """`CrossAttend` within groups: queries [b, g, q, c] look at x [b, g, k, d] of the same group."""

    def __init__(self, q_channels: int, kv_channels: int, config: Block, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.query_norm = layer_norm(q_channels, dtype, rngs, config.epsilon)
        self.key_norm = layer_norm(kv_channels, dtype, rngs, config.epsilon)
        self.attention = Attention(q_channels, kv_channels, q_channels, config, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(q_channels, config, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        queries: Float[Array, "b g q c"],
        x: Float[Array, "b g k d"],
        mask: Bool[Array, "b g q k"] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> Float[Array, "b g q c"]:
        """The queries' shape. mask: True where a query may look; one that may look at nothing gets zeros."""
        if queries.shape[:2] != x.shape[:2]:
            raise InputError(f"expected queries and inputs in the same groups, got {queries.shape} and {x.shape}")
        drop_weights, drop_attended, drop_mlp = split_key(key, 3)
        flat, rate = fold(queries), self.config.dropout
        heads_mask = None if mask is None else fold(mask)[:, None]
        seen = self.attention(self.query_norm(flat), self.key_norm(fold(x)), heads_mask, key=drop_weights)
        seen = dropout(seen, rate, drop_attended)
        if self.config.residual:
            seen = flat + seen
        return (seen + dropout(self.mlp(seen), rate, drop_mlp)).reshape(queries.shape)


class LevelBlock(nnx.Module):
    """[b, g, k, d] to [b, g, latents, channels]: the Perceiver block of HiP (arXiv 2202.10890, section 3)."""

    def __init__(self, config: Level, in_channels: int, skip_channels: int | None, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width = config.channels
        self.config = config
        self.dtype = dtype
        self.queries = nnx.Param(TABLE(rngs.params(), (config.groups * config.latents, width), jnp.float32))
        self.skip = (
            nnx.Linear(skip_channels, width, dtype=dtype, rngs=rngs)
            if skip_channels is not None and skip_channels != width
            else None
        )
        self.cross = GroupedCrossAttend(width, in_channels, config.cross, dtype=dtype, rngs=rngs)
        self.tower = (
            Stack(width, config.depth, config.latent, remat=config.remat, dtype=dtype, rngs=rngs)
            if config.depth
            else None
        )

    def __call__(
        self,
        x: Float[Array, "b g k d"],
        skip: Float[Array, "b g n s"] | None = None,
        mask: Bool[Array, "b g n k"] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> Float[Array, "b g n c"]:
        """Look and think.

        skip: vectors that are added to the latents before they look, such as the encoder's at the same resolution.
        mask: True where a latent may look. key: randomness for training; None for evaluation.
        """
        look_key, tower_key = split_key(key, 2)
        z = self.look(x, skip, mask, key=look_key)
        return z if self.tower is None else self.tower(fold(z), key=tower_key).reshape(z.shape)

    def look(
        self, x: Array, skip: Array | None = None, mask: Array | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, "b g n c"]:
        """The first half: what the latents see, before they think about it."""
        draw_key, cross_key = split_key(key, 2)
        z = self.start(x.shape[0], key=draw_key)
        if skip is not None:
            if skip.shape[:3] != z.shape[:3]:
                raise InputError(f"skip: expected shape {(*z.shape[:3], 'c')}, got {skip.shape}")
            z = z + (skip if self.skip is None else self.skip(skip))
        return self.cross(z, x, mask, key=cross_key)

    def start(self, batch: int, *, key: jax.Array | None = None) -> Float[Array, "b g n c"]:
        """The learned latents, once per sample; with a key, `train_latents` of them."""
        level = self.config
        table = self.queries[...].astype(self.dtype).reshape(level.groups, level.latents, level.channels)
        z = jnp.broadcast_to(table, (batch, *table.shape))
        if key is None or level.train_latents is None or level.train_latents == level.latents:
            return z
        orders = jnp.broadcast_to(jnp.arange(level.latents), z.shape[:3])
        orders = jax.random.permutation(key, orders, axis=2, independent=True)
        return jnp.take_along_axis(z, orders[:, :, : level.train_latents, None], axis=2)


def fold(x: Float[Array, "b g *n"]) -> Float[Array, "bg *n"]:
    """Groups into the batch."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
