"""A mark in sampled text that can be found again: which of two likely ids is taken is decided by a secret.

Tournament sampling (Dathathri et al., Nature 634, 2024) with two competitors a layer, in closed form. Over secrets each
id keeps its probability, so that the text is no worse; what can be found is how often the secret's coins agree with it.
docs/provenance.md says what finding a mark proves, and what it cannot.
"""

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Bool, Float, Int, UInt

WORD = 32
"""Bits of a hash, so the most layers that there can be."""


class Evidence(NamedTuple):
    """How a text agrees with a secret.

    ids: how many were counted: each first one behind some context. agreement: the share of coins that fell for what the
    text has; a half without the mark. p_value: how probable as much agreement is in a text that knows nothing of the
    secret (binomial, exact).
    """

    ids: int
    agreement: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class Watermark:
    """A secret by which ids are drawn.

    secret: whoever knows it can find the mark, and forge it. context: how many ids before an id its coins hang on;
    behind a context that the text has had already, ids are drawn without a mark. layers: of the tournament, up to 32;
    more are found in shorter texts as long as the text has choices left.
    """

    secret: str
    context: int = 4
    layers: int = 20

    def __post_init__(self) -> None:
        if not self.secret:
            raise ConfigError("Watermark.secret: expected at least one letter, got none")
        if self.context < 1:
            raise ConfigError(f"Watermark.context: expected at least 1, got {self.context}")
        if not 1 <= self.layers <= WORD:
            raise ConfigError(f"Watermark.layers: expected 1 to {WORD}, got {self.layers}")

    def coins(
        self, ids: Int[Array, "b n"], place: Int[Array, ""], vocabulary: int
    ) -> tuple[UInt[Array, "b v"], Bool[Array, "b"]]:
        """The coins of every id at a place, one in each bit, and in which rows they count."""
        if ids.shape[1] < self.context:
            return jnp.zeros((len(ids), vocabulary), jnp.uint32), jnp.zeros(len(ids), bool)
        behind = self._contexts(ids, jnp)
        there = jnp.clip(place - self.context, 0, behind.shape[1] - 1)
        own = jax.lax.dynamic_slice_in_dim(behind, there, 1, axis=1)
        before = (behind == own) & (jnp.arange(behind.shape[1]) < there)
        fresh = ~before.any(axis=1) & (place >= self.context)
        return _mixed(own, jnp.arange(vocabulary, dtype=jnp.uint32)[None], jnp), fresh

    def drawn_by(self, chances: Float[Array, "b v"], coins: UInt[Array, "b v"]) -> Float[Array, "b v"]:
        """The probabilities of who wins the tournament, from those of who takes part."""
        for layer in range(self.layers):
            heads = ((coins >> layer) & 1).astype(chances.dtype)
            chances *= 1.0 + heads - (chances * heads).sum(axis=-1, keepdims=True)
        return chances

    def evidence(self, ids: Int[np.ndarray, "n"]) -> Evidence:
        """How a text agrees with the secret.

        ids: of the text alone, without what a model was told before and without padding.

        Raises:
            InputError: no row of ids, or one that is not longer than a context.
        """
        from scipy.stats import binom

        ids = np.asarray(ids)
        if ids.ndim != 1 or len(ids) <= self.context:
            raise InputError(f"ids: expected one row of more than {self.context}, got shape {ids.shape}")
        _, first = np.unique(self._contexts(ids[None, :-1], np)[0], return_index=True)
        behind = self._contexts(ids[None], np)[0][first]
        words = _mixed(behind, ids[first + self.context].astype(np.uint32), np)
        heads = int(sum(int(((words >> layer) & 1).sum()) for layer in range(self.layers)))
        tosses = len(first) * self.layers
        return Evidence(len(first), heads / tosses, float(binom.sf(heads - 1, tosses, 0.5)))

    def _contexts(self, ids: Any, xp: Any) -> Any:
        """A hash of each run of `context` ids, [b, n - context + 1]; by the secret."""
        words = ids.astype(xp.uint32)
        count = ids.shape[1] - self.context + 1
        found = xp.full((ids.shape[0], count), self._seed(), xp.uint32)
        for place in range(self.context):
            found = _mixed(found, words[:, place : place + count], xp)
        return found

    def _seed(self) -> np.uint32:
        return np.uint32(int.from_bytes(hashlib.sha256(self.secret.encode()).digest()[:4], "little"))


def _mixed(state: Any, word: Any, xp: Any) -> Any:
    """A hash of a hash and a word, both uint32: MurmurHash3's steps for a word, and those by which it ends."""
    word = word * xp.uint32(0xCC9E2D51)
    word = ((word << 15) | (word >> 17)) * xp.uint32(0x1B873593)
    state = state ^ word
    state = ((state << 13) | (state >> 19)) * xp.uint32(5) + xp.uint32(0xE6546B64)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ (state >> shift)) * xp.uint32(factor)
    return state ^ (state >> 16)
