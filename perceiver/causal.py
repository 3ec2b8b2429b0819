"""A causal language model over ids: each position knows what comes before it. GPT-2's pre-norm layers, tied output."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import Block, SelfAttend, dropout, layer_norm, split_key
from perceiver.errors import ConfigError, InputError, naming
from perceiver.model import Compute, Model, ModelConfig
from perceiver.quantised import Weights
from perceiver.tokens import check_array
from perceiver.typing import Array, Float, Int

SCALE = 0.02
"""Standard deviation of embeddings and positions at the start."""

Between = Callable[[int, Array], Array]
"""Called with a layer's number and its input, for what is put between the layers."""


@dataclasses.dataclass(frozen=True)
class CausalText:
    """A causal transformer over ids, with learned positions and logits from the transposed embedding.

    vocabulary: number of ids. max_length: the most positions. channels, depth: width and count of the layers; block:
    their shape.
    """

    vocabulary: int
    max_length: int
    channels: int
    depth: int
    block: Block = Block(heads=4, widening=4)

    def __post_init__(self) -> None:
        for name in ("vocabulary", "max_length", "channels", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"CausalText.{name} must be at least 1, got {getattr(self, name)}")
        if self.block.qk_channels is None and self.channels % self.block.heads:
            raise ConfigError(f"CausalText.channels is {self.channels}, which {self.block.heads} heads do not divide")

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "CausalTextLayers":
        """The module."""
        return CausalTextLayers(self, dtype=dtype, rngs=rngs)


class CausalTextLayers(nnx.Module):
    """See CausalText."""

    def __init__(self, config: CausalText, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        initial = nnx.initializers.truncated_normal(SCALE)
        self.config, self.dtype = config, dtype
        self.table = nnx.Param(initial(rngs.params(), (config.vocabulary, config.channels), jnp.float32))
        self.positions = nnx.Param(initial(rngs.params(), (config.max_length, config.channels), jnp.float32))
        layers = [SelfAttend(config.channels, config.block, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        self.layers = nnx.List(layers)
        self.norm = layer_norm(config.channels, dtype, rngs, config.block.epsilon)

    def __call__(
        self, ids: Int[Array, "b n"], *, between: Between | None = None, key: jax.Array | None = None
    ) -> Float[Array, "b n v"]:
        """Logits of the id that follows each position, float32. Ids outside the vocabulary are clamped.

        between: put in front of each layer. key: for dropout in training.

        Raises:
            InputError: no integers [b, n], or more than `max_length` of them.
        """
        check_array(ids, ("b", "n"), "iu")
        count = ids.shape[1]
        if count > self.config.max_length:
            raise InputError(f"expected at most {self.config.max_length} tokens, got {count}")
        keys = split_key(key, self.config.depth + 1)
        table = self.table[...]
        known = jnp.clip(jnp.asarray(ids, jnp.int32), 0, self.config.vocabulary - 1)
        x = dropout((table[known] + self.positions[...][:count]).astype(self.dtype), self.config.block.dropout, keys[0])
        before = jnp.tril(jnp.ones((count, count), bool))[None, None]
        for number, layer in enumerate(self.layers):
            x = x if between is None else between(number, x)
            x = layer(x, before, key=keys[number + 1])
        return jnp.einsum("bnc,vc->bnv", self.norm(x), table.astype(self.dtype), preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class LanguageConfig(ModelConfig):
    """A language model by itself. text: its layers. compute: dtype of the computation. weights: how parameters are
    stored.
    """

    text: CausalText
    compute: Compute = Compute.FLOAT32
    weights: Weights = Weights.FLOAT32

    def initial(self, key: jax.Array) -> "Language":
        """See ModelConfig."""
        return Language(self, nnx.Rngs(key))


class Language(Model):
    """See LanguageConfig."""

    def __init__(self, config: LanguageConfig, rngs: nnx.Rngs):
        self.config = config
        self.text = config.text.build(dtype=config.compute.dtype, rngs=rngs)

    def __call__(self, ids: Int[Array, "b n"], *, key: jax.Array | None = None) -> Float[Array, "b n v"]:
        """Logits of the id that follows each position, float32. key: for dropout in training.

        Raises:
            InputError: see CausalTextLayers.
        """
        with naming("ids"):
            return self.text(ids, key=key)
