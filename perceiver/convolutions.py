"""Convolutions in front of and behind the latent bottleneck, as in Perceiver IO's third ImageNet model."""

import dataclasses
import enum
import math

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.errors import ConfigError
from perceiver.typing import Array, Float

KERNEL, STRIDE, POOL = 7, 2, 3


class Padding(enum.Enum):
    """Zeros around a picture before it is convolved and pooled."""

    SAME = "as many as give size / 2, rounded up, the odd one behind (DeepMind)"
    SYMMETRIC = "three on each side of the convolution, none around the pooling (Hugging Face)"


@dataclasses.dataclass(frozen=True)
class ConvStem:
    """Convolution 7 x 7 / 2, batch norm, ReLU and max pooling 3 x 3 / 2, `layers` times: 4 times fewer rows each.

    channels: of every layer. norm: with batch norm.
    """

    channels: int = 64
    layers: int = 1
    norm: bool = True
    padding: Padding = Padding.SAME

    def __post_init__(self) -> None:
        if min(self.channels, self.layers) < 1:
            raise ConfigError(f"ConvStem needs channels and layers of at least 1, got {self.channels}, {self.layers}")

    def size(self, pixels: int) -> int:
        """What one axis of that many pixels becomes."""
        for _ in range(self.layers):
            if self.padding is Padding.SAME:
                pixels = math.ceil(math.ceil(pixels / STRIDE) / STRIDE)
            else:
                convolved = (pixels + 2 * (KERNEL // 2) - KERNEL) // STRIDE + 1
                pixels = (convolved - POOL) // STRIDE + 1
        return pixels

    def build(self, in_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "Downsample":
        """The module."""
        return Downsample(self, in_channels, dtype=dtype, rngs=rngs)


class Downsample(nnx.Module):
    """See ConvStem: [b, h, w, in] to [b, size(h), size(w), channels]."""

    def __init__(self, config: ConvStem, in_channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        same = config.padding is Padding.SAME
        border = KERNEL // 2
        self.pooling = "SAME" if same else "VALID"
        self.convolutions = nnx.List(
            [
                nnx.Conv(
                    in_channels if layer == 0 else config.channels,
                    config.channels,
                    (KERNEL, KERNEL),
                    strides=STRIDE,
                    padding="SAME" if same else ((border, border), (border, border)),
                    use_bias=False,
                    dtype=dtype,
                    rngs=rngs,
                )
                for layer in range(config.layers)
            ]
        )
        self.norms = nnx.List([BatchNorm(config.channels) for _ in range(config.layers if config.norm else 0)])

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b i j o"]:
        """train: normalise by the batch's own statistics and remember them."""
        for layer, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if self.norms:
                x = self.norms[layer](x, train=train)
            x = nnx.max_pool(jax.nn.relu(x), (POOL, POOL), (STRIDE, STRIDE), padding=self.pooling)
        return x


class BatchNorm(nnx.Module):
    """Batch norm whose running statistics are averages without a bias towards their start, as in Haiku.

    nnx.BatchNorm's start at 0 and 1 and forget that slowly; DeepMind's weights come with debiased averages, each with
    its own count of updates. Statistics are float32.
    """

    def __init__(self, channels: int, decay: float = 0.9, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = Average(jnp.zeros((channels,), jnp.float32), decay)
        self.variance = Average(jnp.ones((channels,), jnp.float32), decay)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b h w c"]:
        """Same shape. train: use the statistics of this batch and fold them into the averages."""
        wide = x.astype(jnp.float32)
        if train:
            mean = wide.mean(axis=(0, 1, 2))
            variance = jnp.square(wide).mean(axis=(0, 1, 2)) - jnp.square(mean)
            variance = jnp.maximum(variance, 0.0)  # rounding may leave less of a channel that hardly varies
            self.mean.update(mean)
            self.variance.update(variance)
        else:
            mean, variance = self.mean.value[...], self.variance.value[...]
        normal = (wide - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class Average(nnx.Module):
    """An exponential moving average over the values seen so far, weighted as if there had been nothing before them.

    hidden: the plain average, which starts at 0; value: the same without that start's weight, after `count` updates.
    """

    def __init__(self, start: Array, decay: float):
        self.decay = decay
        self.value = nnx.BatchStat(start)
        self.hidden = nnx.BatchStat(jnp.zeros_like(start))
        self.count = nnx.BatchStat(jnp.asarray(0, jnp.int32))

    def update(self, seen: Array) -> None:
        """Take one more value."""
        count = self.count[...] + 1
        hidden = self.hidden[...] * self.decay + jax.lax.stop_gradient(seen) * (1.0 - self.decay)
        self.count[...], self.hidden[...] = count, hidden
        self.value[...] = hidden / (1.0 - self.decay ** count.astype(jnp.float32))


class Upsample(nnx.Module):
    """Transposed convolutions of 4 pixels that double rows and columns `space` times and frames `time` times.

    Channels halve down to `channels`, with a ReLU between. time: None works on pictures [b, h, w, c], a number on
    clips [b, t, h, w, c]. For a head behind a coarse grid of queries.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        space: int = 2,
        time: int | None = None,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        layers = max(space, time or 0)
        widths = [in_channels, *(channels * 2 ** (layers - 1 - i) for i in range(layers))]
        axes = [space, space] if time is None else [time, space, space]
        self.layers = nnx.List(
            [
                nnx.ConvTranspose(
                    widths[i],
                    widths[i + 1],
                    (4,) * len(axes),
                    strides=tuple(2 if i < doublings else 1 for doublings in axes),
                    padding="SAME",
                    dtype=dtype,
                    rngs=rngs,
                )
                for i in range(layers)
            ]
        )

    def __call__(self, x: Float[Array, "b *grid c"]) -> Float[Array, "b *larger o"]:
        """See the class."""
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if number < len(self.layers):
                x = jax.nn.relu(x)
        return x
