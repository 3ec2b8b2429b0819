"""Few latents out of any number of tokens, and layers by which a text model looks at them: Flamingo's two parts.

Sources: Flamingo (arXiv 2204.14198, section 3.1 and appendix A.1), as open_flamingo computes it; the resampler of
Idefics2 (arXiv 2405.02246), as transformers computes it.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attend import attend
from perceiver.attention import Activation, layer_norm, mean_where_blind
from perceiver.errors import ConfigError, InputError
from perceiver.tokens import check_array
from perceiver.typing import Array, Bool, Float, Int


class Norm(enum.Enum):
    """How vectors are brought to one size, in float32."""

    LAYER = "mean 0 and variance 1, then scale and bias"
    RMS = "mean square 1, then scale (arXiv 1910.07467)"

    def build(self, channels: int, epsilon: float, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
        """The module."""
        if self is Norm.LAYER:
            return layer_norm(channels, dtype, rngs, epsilon)
        return nnx.RMSNorm(channels, epsilon=epsilon, dtype=dtype, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Resampler:
    """Latents that look at tokens and at themselves, layer after layer; each picture or film by itself.

    latents, channels, depth: as of an Encoder; tokens have the same width. heads, head_channels: of the attention.
    kv_heads: fewer heads of keys and values, each for several of queries (arXiv 2305.13245); None has as many.
    frames: the most of a film, each with a learned embedding; None takes any number, unmarked. media: likewise, the
    most pictures and films of a sample. gated: the MLP is a product of two maps (arXiv 2002.05202). norm, epsilon,
    activation, widening: of the layers.
    """

    latents: int
    channels: int
    depth: int
    heads: int = 8
    head_channels: int = 64
    kv_heads: int | None = None
    frames: int | None = None
    media: int | None = None
    gated: bool = False
    norm: Norm = Norm.LAYER
    epsilon: float = 1e-5
    activation: Activation = Activation.GELU_ERF
    widening: int = 4

    def __post_init__(self) -> None:
        for name in ("latents", "channels", "depth", "heads", "head_channels", "widening"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Resampler.{name} must be at least 1, got {getattr(self, name)}")
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ConfigError(f"Resampler.kv_heads must divide {self.heads} heads, got {self.kv_heads}")

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "ResamplerLayers":
        """The module."""
        return ResamplerLayers(self, dtype=dtype, rngs=rngs)


class ResamplerLayers(nnx.Module):
    """See Resampler."""

    def __init__(self, config: Resampler, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config

        def table(count: int | None) -> nnx.Param | None:
            if count is None:
                return None
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), (count, config.channels)))

        self.latents = nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.latents, config.channels)))
        self.frames, self.media = table(config.frames), table(config.media)
        self.layers = nnx.List([ResamplerLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)])
        self.norm = config.norm.build(config.channels, config.epsilon, dtype=dtype, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "b m f n c"], mask: Bool[Array, "b m f n"] | None = None
    ) -> Float[Array, "b m l c"]:
        """Tokens of m pictures or films of f frames to the latents of each. mask: True = real.

        Raises:
            InputError: another width, or more frames or media than there are embeddings for.
        """
        check_array(tokens, ("b", "m", "f", "n", self.config.channels))
        batch, media, frames, count, channels = tokens.shape
        for what, given, table in (("frames", frames, self.frames), ("media", media, self.media)):
            if table is not None and given > len(table[...]):
                raise InputError(f"tokens: expected at most {len(table[...])} {what}, got {given}")
        if self.frames is not None:
            tokens = tokens + self.frames[...][:frames, None]
        if self.media is not None:
            tokens = tokens + self.media[...][:media, None, None]
        tokens = tokens.reshape(batch * media, frames * count, channels)
        seen = None if mask is None else mask.reshape(batch * media, frames * count)
        x = jnp.broadcast_to(self.latents[...], (batch * media, *self.latents[...].shape))
        for layer in self.layers:
            x = layer(x, tokens, seen)
        return self.norm(x).reshape(batch, media, -1, channels)


class ResamplerLayer(nnx.Module):
    """Latents look at tokens and latents; then an MLP."""

    def __init__(self, config: Resampler, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        width, wide = config.channels, config.heads * config.head_channels
        shared = (config.kv_heads or config.heads) * config.head_channels

        def norm() -> nnx.Module:
            return config.norm.build(width, config.epsilon, dtype=dtype, rngs=rngs)

        self.token_norm, self.latent_norm, self.mlp_norm = norm(), norm(), norm()
        self.query, self.out = _plain(width, wide, dtype, rngs), _plain(wide, width, dtype, rngs)
        self.key, self.value = _plain(width, shared, dtype, rngs), _plain(width, shared, dtype, rngs)
        hidden = config.widening * width
        self.mlp = PlainMlp(width, hidden, width, config.activation, config.gated, dtype=dtype, rngs=rngs)

    def __call__(
        self, latents: Float[Array, "b l c"], tokens: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None
    ) -> Float[Array, "b l c"]:
        """Same shape as the latents, which always see themselves."""
        latents = latents + self.attended(latents, tokens, mask)
        return latents + self.mlp(self.mlp_norm(latents))

    def attended(self, latents: Array, tokens: Array, mask: Array | None) -> Array:
        """What the latents see."""
        own = self.latent_norm(latents)
        both = jnp.concatenate([self.token_norm(tokens), own], axis=1)
        if mask is not None:
            mask = jnp.pad(mask, ((0, 0), (0, own.shape[1])), constant_values=True)[:, None, None, :]
        times = self.config.heads // (self.config.kv_heads or self.config.heads)
        q, k, v = (_heads(x, self.config.head_channels) for x in (self.query(own), self.key(both), self.value(both)))
        k, v = (jnp.repeat(x, times, axis=2) for x in (k, v))
        return self.out(attend(q, k, v, mask).reshape(*own.shape[:2], -1))


@dataclasses.dataclass(frozen=True)
class GatedCrossAttend:
    """A layer by which text looks at media, put into a text model: at first it changes nothing, since its gates are 0.

    channels: of the text. media_channels: of what it looks at. heads, head_channels, widening: of the layer.
    latest: each position looks at the last picture or film before it only, not at all of them.
    mean_when_blind: a position that may look at nothing takes the mean of all media, as open_flamingo does there
    (but, with `latest`, before the first of them); else it takes nothing.
    """

    channels: int
    media_channels: int
    heads: int = 8
    head_channels: int = 64
    widening: int = 4
    latest: bool = True
    mean_when_blind: bool = False

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "GatedCrossAttendLayer":
        """The module."""
        return GatedCrossAttendLayer(self, dtype=dtype, rngs=rngs)


class GatedCrossAttendLayer(nnx.Module):
    """See GatedCrossAttend."""

    def __init__(self, config: GatedCrossAttend, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        wide, width = config.heads * config.head_channels, config.channels
        self.norm = Norm.LAYER.build(width, 1e-5, dtype=dtype, rngs=rngs)
        self.mlp_norm = Norm.LAYER.build(width, 1e-5, dtype=dtype, rngs=rngs)
        self.query, self.out = _plain(width, wide, dtype, rngs), _plain(wide, width, dtype, rngs)
        self.key = _plain(config.media_channels, wide, dtype, rngs)
        self.value = _plain(config.media_channels, wide, dtype, rngs)
        hidden = config.widening * width
        self.mlp = PlainMlp(width, hidden, width, Activation.GELU_ERF, gated=False, dtype=dtype, rngs=rngs)
        self.attention_gate, self.mlp_gate = nnx.Param(jnp.zeros(())), nnx.Param(jnp.zeros(()))

    def __call__(
        self, text: Float[Array, "b t c"], media: Float[Array, "b m l d"], times: Int[Array, "b t"] | None
    ) -> Float[Array, "b t c"]:
        """Same shape. times: how many media come before each position, itself included, see `media_times`; None looks
        at all.
        """
        text = text + jnp.tanh(self.attention_gate[...]).astype(text.dtype) * self.attended(text, media, times)
        return text + jnp.tanh(self.mlp_gate[...]).astype(text.dtype) * self.mlp(self.mlp_norm(text))

    def attended(self, text: Array, media: Array, times: Array | None) -> Array:
        """What the text sees."""
        batch, count, latents = media.shape[:3]
        flat = media.reshape(batch, count * latents, -1)
        seen = self.query(self.norm(text)), self.key(flat), self.value(flat)
        q, k, v = (_heads(x, self.config.head_channels) for x in seen)
        if times is None:
            found = attend(q, k, v, None)
        else:
            number = jnp.repeat(jnp.arange(1, count + 1), latents)
            mask = times[..., None] == number if self.config.latest else times[..., None] >= number
            mask = mask[:, None]
            if self.config.mean_when_blind:
                q, mask = mean_where_blind(q, mask)
            found = attend(q, k, v, mask)
            if self.config.mean_when_blind and self.config.latest:
                found = jnp.where((times > 0)[..., None, None], found, 0)
        return self.out(found.reshape(*text.shape[:2], -1))


def media_times(locations: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """How many media there are up to each position. locations: True where the text has one, as a token of its own."""
    return jnp.cumsum(locations.astype(jnp.int32), axis=1)


class PlainMlp(nnx.Module):
    """Widen, activate, narrow, without biases; gated by a second map of the input or not."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        activation: Activation,
        gated: bool,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.widen = _plain(inputs, hidden, dtype, rngs)
        self.gate = _plain(inputs, hidden, dtype, rngs) if gated else None
        self.narrow = _plain(hidden, outputs, dtype, rngs)

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        """Any leading axes."""
        if self.gate is None:
            return self.narrow(self.activation(self.widen(x)))
        return self.narrow(self.activation(self.gate(x)) * self.widen(x))


def _plain(inputs: int, outputs: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=False, dtype=dtype, rngs=rngs)


def _heads(x: Array, channels: int) -> Array:
    return x.reshape(*x.shape[:2], -1, channels)
