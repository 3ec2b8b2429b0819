"""What an autoregressive Perceiver reads, and what its latents start from."""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Activation, linear
from perceiver.autoregressive_positions import SCALE
from perceiver.errors import ConfigError
from perceiver.typing import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Ids:
    """Ids that stand for no text. vocabulary: how many. max_length: the most places. width, scale: as for Bytes."""

    vocabulary: int
    max_length: int
    width: int = 128
    scale: float = SCALE

    def __post_init__(self) -> None:
        for name in ("vocabulary", "max_length", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Ids.{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def padding(self) -> int:
        """The id that fills the budget."""
        return 0


@dataclasses.dataclass(frozen=True)
class FromId:
    """A latent starts from its id's vector by a linear map, and so many further layers, each activated."""

    layers: int = 0
    activation: Activation = Activation.SQUARED_RELU

    def build(self, width: int, count: int, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "FromIdQuery":
        """The module. width: of an id's vector. count: of the latents. channels: of a latent."""
        return FromIdQuery(self, width, channels, dtype=dtype, rngs=rngs)


class FromIdQuery(nnx.Module):
    """See FromId."""

    def __init__(self, config: FromId, width: int, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.activation = config.activation
        self.start = linear(width, channels, dtype=dtype, rngs=rngs)
        layers = [linear(channels, channels, dtype=dtype, rngs=rngs) for _ in range(config.layers)]
        self.layers = nnx.List(layers)

    def __call__(self, vectors: Float[Array, "b q w"], slots: Int[Array, "q"]) -> Float[Array, "b q c"]:
        """Before what tells a place's latents apart is added."""
        return self.start(vectors)

    def refined(self, x: Float[Array, "b q c"]) -> Float[Array, "b q c"]:
        """After that."""
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


@dataclasses.dataclass(frozen=True)
class FromSlot:
    """A latent starts from a trained vector of its number, or from one that all share."""

    shared: bool = False

    def build(self, width: int, count: int, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "FromSlotQuery":
        """See FromId."""
        return FromSlotQuery(self, count, channels, dtype=dtype, rngs=rngs)


class FromSlotQuery(nnx.Module):
    """See FromSlot."""

    def __init__(self, config: FromSlot, count: int, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype, self.shared = dtype, config.shared
        initial = nnx.initializers.truncated_normal(SCALE)
        self.table = nnx.Param(initial(rngs.params(), (1 if config.shared else count, channels), jnp.float32))

    def __call__(self, vectors: Float[Array, "b q w"], slots: Int[Array, "q"]) -> Float[Array, "b q c"]:
        """See FromIdQuery."""
        chosen = self.table[...][jnp.zeros_like(slots) if self.shared else slots].astype(self.dtype)
        return jnp.broadcast_to(chosen, (vectors.shape[0], *chosen.shape))

    def refined(self, x: Float[Array, "b q c"]) -> Float[Array, "b q c"]:
        """See FromIdQuery."""
        return x
