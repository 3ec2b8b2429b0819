"""Towers: a picture or a text as tokens, through self-attention, to one vector.

ViT (arXiv 2010.11929) and both halves of CLIP (2103.00020) and SigLIP (2303.15343).
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from perceiver.adapters.base import standardise
from perceiver.adapters.image import Image, to_unit
from perceiver.attention import Attention, Block, Mlp, Stack, dropout, layer_norm, split_key
from perceiver.errors import ConfigError, InputError
from perceiver.patches import to_patches
from perceiver.prompts import Prompts
from perceiver.tokens import check_array, presence
from perceiver.typing import Array, Bool, Float, Int

SCALE = 0.02
"""Standard deviation of learned tokens, positions and embeddings at the start."""


@dataclasses.dataclass(frozen=True)
class VisionTower:
    """A Vision Transformer without its last linear map.

    image: raw form of a picture. Of this adapter, shape, statistics and how a file is brought to that shape count;
        what it says about tokens does not, so leave that alone.
    patch: (rows, columns) of a patch; pixels at the bottom and right that fill none are left out.
    channels, depth: width and count of the layers. block: their shape.
    class_token: a learned token in front of the patches.
    probe: a learned query that looks at all tokens for the tower's answer, followed by an MLP (SigLIP's head); without
        one the class token answers, and without that the mean over the patches.
    patch_bias: of the patch embedding. qkv_bias: of queries, keys and values. first_norm: a layer norm before the
        first layer (CLIP). remat: recompute each layer in the backward pass.
    """

    image: Image
    patch: tuple[int, int]
    channels: int
    depth: int
    block: Block
    class_token: bool = True
    probe: Block | None = None
    patch_bias: bool = True
    qkv_bias: bool = True
    first_norm: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        if min(*self.patch, *self.grid) < 1:
            raise ConfigError(f"VisionTower: an image {self.image.shape} has no patches of {self.patch}")
        if self.image != Image(**{name: getattr(self.image, name) for name in _picture_fields()}):
            raise ConfigError(
                "VisionTower.image: expected shape and preprocessing only, since the tower has its own patches and "
                f"positions, got {self.image}"
            )
        _check_layers("VisionTower", self.channels, self.depth, self.block)
        if self.probe is not None:
            _check_layers("VisionTower.probe", self.channels, 1, self.probe)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image.shape[0] // self.patch[0], self.image.shape[1] // self.patch[1]

    @property
    def tokens(self) -> int:
        """Patches, and the class token."""
        return self.grid[0] * self.grid[1] + self.class_token

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "VisionEncoder":
        """The module, computing in `dtype` with float32 parameters."""
        return VisionEncoder(self, dtype=dtype, rngs=rngs)


class VisionEncoder(nnx.Module):
    """See VisionTower."""

    def __init__(self, config: VisionTower, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, block = config.channels, config.block
        initial = nnx.initializers.truncated_normal(SCALE)
        features = config.patch[0] * config.patch[1] * config.image.shape[2]
        self.config = config
        self.dtype = dtype
        self.patches = nnx.Linear(features, width, use_bias=config.patch_bias, dtype=dtype, rngs=rngs)
        self.class_token = nnx.Param(initial(rngs.params(), (width,), jnp.float32)) if config.class_token else None
        self.positions = nnx.Param(initial(rngs.params(), (config.tokens, width), jnp.float32))
        self.first_norm = layer_norm(width, dtype, rngs, block.epsilon) if config.first_norm else None
        self.stack = Stack(width, config.depth, block, remat=config.remat, dtype=dtype, rngs=rngs)
        if not config.qkv_bias:
            _drop_qkv_bias(self.stack)
        self.norm = layer_norm(width, dtype, rngs, block.epsilon)
        self.probe = None if config.probe is None else Probe(width, config.probe, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Float[Array, "b h w c"], *, key: jax.Array | None = None) -> Float[Array, "b d"]:
        """Pictures to one vector each. key: randomness for dropout in training; None for evaluation.

        Raises:
            InputError: not uint8 or floating point pictures of the declared shape.
        """
        states = self.norm(self.states(raw, key=key))
        if self.probe is not None:
            return self.probe(states)
        return states.mean(axis=1) if self.class_token is None else states[:, 0]

    def states(self, raw: Float[Array, "b h w c"], *, key: jax.Array | None = None) -> Float[Array, "b n d"]:
        """What the last layer gives, before the last norm; the class token comes first."""
        embed_key, stack_key = split_key(key, 2)
        x = dropout(self.embed(raw), self.config.block.dropout, embed_key)
        return self.stack(x if self.first_norm is None else self.first_norm(x), key=stack_key)

    def embed(self, raw: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """The tokens with their positions, row by row behind the class token."""
        image, patch = self.config.image, self.config.patch
        check_array(raw, ("b", *image.shape), "fu")
        pixels = standardise(to_unit(raw), image.mean, image.std).astype(self.dtype)
        rows, columns = self.config.grid
        x = self.patches(to_patches(pixels[:, : rows * patch[0], : columns * patch[1]], patch))
        x = rearrange(x, "b h w d -> b (h w) d")
        if self.class_token is not None:
            first = jnp.broadcast_to(self.class_token[...].astype(self.dtype), (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([first, x], axis=1)
        return x + self.positions[...].astype(self.dtype)


class Probe(nnx.Module):
    """A learned query looks at all tokens, then passes an MLP with a residual (SigLIP's head)."""

    def __init__(self, channels: int, config: Block, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        initial = nnx.initializers.truncated_normal(SCALE)
        self.dtype = dtype
        self.query = nnx.Param(initial(rngs.params(), (channels,), jnp.float32))
        self.attention = Attention(channels, channels, channels, config, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(channels, config, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        """One vector a sample."""
        query = jnp.broadcast_to(self.query[...].astype(self.dtype), (len(x), 1, x.shape[-1]))
        seen = self.attention(query, x)
        return (seen + self.mlp(seen))[:, 0]


class TextPooling(abc.ABC):
    """Which position's state speaks for a text."""

    @abc.abstractmethod
    def places(self, ids: Int[Array, "b n"]) -> Int[Array, " b"]:
        """That position in each row of ids."""


@dataclasses.dataclass(frozen=True)
class EndOfText(TextPooling):
    """The token that ends the text (CLIP).

    id: its first occurrence is taken, or position 0 where it is missing; None takes the first occurrence of the row's
        largest id, which end-of-text is in CLIP's own vocabulary.
    """

    id: int | None = None

    def places(self, ids: Int[Array, "b n"]) -> Int[Array, " b"]:
        """See TextPooling."""
        return jnp.argmax(ids if self.id is None else ids == self.id, axis=-1)


@dataclasses.dataclass(frozen=True)
class LastPosition(TextPooling):
    """The last position, be it padding (SigLIP)."""

    def places(self, ids: Int[Array, "b n"]) -> Int[Array, " b"]:
        """See TextPooling."""
        return jnp.full((ids.shape[0],), ids.shape[1] - 1)


@dataclasses.dataclass(frozen=True)
class TextTower:
    """A transformer over token ids without its last linear map.

    vocabulary: number of ids. max_length: the most tokens of a text. channels, depth, block: as for VisionTower.
    pooling: whose state answers. causal: a token sees only those before it (CLIP).
    prompts: how strings become ids; None for a tower that is only ever given ids. remat: as for VisionTower.
    """

    vocabulary: int
    max_length: int
    channels: int
    depth: int
    block: Block
    pooling: TextPooling
    causal: bool = False
    prompts: Prompts | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        if min(self.vocabulary, self.max_length) < 1:
            raise ConfigError(
                f"TextTower: expected at least one id and one token, got {self.vocabulary} and {self.max_length}"
            )
        _check_layers("TextTower", self.channels, self.depth, self.block)

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "TextEncoder":
        """The module, computing in `dtype` with float32 parameters."""
        return TextEncoder(self, dtype=dtype, rngs=rngs)


class TextEncoder(nnx.Module):
    """See TextTower."""

    def __init__(self, config: TextTower, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        initial = nnx.initializers.truncated_normal(SCALE)
        self.config = config
        self.dtype = dtype
        self.table = nnx.Param(initial(rngs.params(), (config.vocabulary, config.channels), jnp.float32))
        self.positions = nnx.Param(initial(rngs.params(), (config.max_length, config.channels), jnp.float32))
        self.stack = Stack(config.channels, config.depth, config.block, remat=config.remat, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(config.channels, dtype, rngs, config.block.epsilon)

    def __call__(
        self, ids: Int[Array, "b n"], mask: Bool[Array, "b n"] | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, "b d"]:
        """Texts to one vector each. mask: True = real, which tokens may be seen; None shows all.

        Raises:
            InputError: no integers [b, n], more tokens than `max_length`, or another mask than bool [b, n].
        """
        states = self.norm(self.states(ids, mask, key=key))
        return states[jnp.arange(len(states)), self.config.pooling.places(jnp.asarray(ids))]

    def states(
        self, ids: Int[Array, "b n"], mask: Bool[Array, "b n"] | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        """What the last layer gives, before the last norm. Ids outside the vocabulary are clamped."""
        check_array(ids, ("b", "n"), "iu")
        count = ids.shape[1]
        if count > self.config.max_length:
            raise InputError(f"expected at most {self.config.max_length} tokens, got {count}")
        embed_key, stack_key = split_key(key, 2)
        known = jnp.clip(jnp.asarray(ids, jnp.int32), 0, self.config.vocabulary - 1)
        x = (self.table[...][known] + self.positions[...][:count]).astype(self.dtype)
        x = dropout(x, self.config.block.dropout, embed_key)
        return self.stack(x, self._visible(presence(mask, *ids.shape), count), key=stack_key)

    def _visible(self, real: Bool[Array, "b n"] | None, count: int) -> Bool[Array, "#b 1 #n n"] | None:
        keys = None if real is None else real[:, None, None, :]
        if not self.config.causal:
            return keys
        before = jnp.tril(jnp.ones((count, count), bool))[None, None]
        return before if keys is None else before & keys


def _picture_fields() -> list[str]:
    """Fields of Image that say what a picture is and how a file becomes one."""
    return [f.name for f in dataclasses.fields(Image) if f.metadata or f.name == "shape"]


def _check_layers(name: str, channels: int, depth: int, block: Block) -> None:
    if min(channels, depth) < 1:
        raise ConfigError(f"{name}: expected at least one channel and one layer, got {channels} and {depth}")
    if block.qk_channels is None and channels % block.heads:
        raise ConfigError(f"{name}.channels is {channels}, which {block.heads} heads do not divide")


def _drop_qkv_bias(stack: Stack) -> None:
    attention = stack.layers.attention
    for linear in (attention.query, attention.key, attention.value):
        linear.use_bias, linear.bias = False, None
