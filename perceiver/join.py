"""Tokens of all modalities as one set, and the mask tokens that training hides some of them behind."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.attention import split_key
from perceiver.config import freeze
from perceiver.tokens import Tokens, concatenate


class Join(nnx.Module):
    """Tokens of several modalities to one set, each padded with learned channels to the common width.

    Modalities are joined in the order of their names.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        width: int,
        mask_rates: Mapping[str, float],
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        initial = nnx.initializers.truncated_normal(0.02)
        self.dtype = dtype
        self.mask_rates = freeze(mask_rates)
        self.padding = nnx.Dict(
            {
                name: nnx.Param(initial(rngs.params(), (width - own,), jnp.float32))
                for name, own in sorted(channels.items())
                if width > own
            }
        )
        self.masks = nnx.Dict(
            {name: nnx.Param(initial(rngs.params(), (width,), jnp.float32)) for name in sorted(mask_rates)}
        )

    def __call__(self, tokens: Mapping[str, Tokens], *, key: jax.Array | None = None) -> Tokens:
        """Join what is given; a modality that is left out takes no part. key: chooses the tokens to be masked."""
        names = sorted(tokens)
        keys = split_key(key, len(names))
        return concatenate(
            [self._hide(name, self._widen(name, tokens[name]), own) for name, own in zip(names, keys, strict=True)]
        )

    def _hide(self, name: str, tokens: Tokens, key: jax.Array | None) -> Tokens:
        """Replace tokens by the modality's mask token."""
        rate = self.mask_rates.get(name, 0.0)
        if rate == 0.0 or (key is None and rate < 1.0):
            return tokens
        hidden = jnp.ones(tokens.values.shape[:2], bool)
        if key is not None and rate < 1.0:
            hidden = jax.random.bernoulli(key, rate, hidden.shape)
        mask = self.masks[name][...].astype(self.dtype)
        return Tokens(jnp.where(hidden[..., None], mask, tokens.values), tokens.mask)

    def _widen(self, name: str, tokens: Tokens) -> Tokens:
        if name not in self.padding:
            return tokens
        padding = self.padding[name][...].astype(self.dtype)
        padding = jnp.broadcast_to(padding, (*tokens.values.shape[:2], padding.shape[0]))
        return Tokens(jnp.concatenate([tokens.values, padding], axis=-1), tokens.mask)
