"""Writing text id by id: how the next id is drawn, and the loop that draws them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How an id is drawn.

    temperature: logits are divided by it; 0 takes the likeliest. top_k: among so many of the likeliest. top_p: among
    the fewest that have this much of the probability (arXiv 1904.09751). None draws among all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"Sampling.temperature: expected 0 or more, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"Sampling.top_k: expected at least 1, got {self.top_k}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"Sampling.top_p: expected above 0 and up to 1, got {self.top_p}")

    def __call__(self, logits: Float[Array, "b v"], key: jax.Array) -> Int[Array, "b"]:
        """One id for each row, int32."""
        if self.temperature == 0.0:
            return logits.argmax(axis=-1).astype(jnp.int32)
        return jax.random.categorical(key, self.kept(logits)).astype(jnp.int32)

    def kept(self, logits: Float[Array, "b v"]) -> Float[Array, "b v"]:
        """Logits at the temperature, minus infinity where an id is not among those to draw from."""
        logits = logits.astype(jnp.float32) / self.temperature
        if self.top_k is None and self.top_p is None:
            return logits
        order = jnp.argsort(-logits, axis=-1)
        ranked = jnp.take_along_axis(logits, order, axis=-1)
        keep = jnp.ones(ranked.shape, bool)
        if self.top_k is not None:
            keep &= jnp.arange(ranked.shape[-1]) < self.top_k
        if self.top_p is not None:  # what comes before an id has less than top_p, so the first always stays
            shares = jax.nn.softmax(jnp.where(keep, ranked, -jnp.inf), axis=-1)
            keep &= jnp.cumsum(shares, axis=-1) - shares < self.top_p
        back = jnp.argsort(order, axis=-1)
        return jnp.where(jnp.take_along_axis(keep, back, axis=-1), logits, -jnp.inf)


DRAWN = Sampling()
"""Every id by its own probability."""


def write(
    logits_of: Callable[[Int[Array, "b n"]], Float[Array, "b n v"]],
    ids: Int[Array, "b n"],
    lengths: Int[Array, "b"],
    sampling: Sampling,
    key: jax.Array,
    end: int,
    padding: int,
) -> Int[Array, "b n"]:
    """Fill rows of ids from their own lengths on, up to and with the first `end`; padding behind it. Can be compiled.

    logits_of: of a causal model. Each row draws its own randomness, so that it does not matter what else is written.

    Raises:
        InputError: lengths of another shape.
    """
    if lengths.shape != ids.shape[:1]:
        raise InputError(f"lengths: expected {ids.shape[:1]}, got {lengths.shape}")
    count = ids.shape[1]
    ids = jnp.where(jnp.arange(count) < lengths[:, None], ids, padding)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(ids)))

    def turn(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        place, ids, done = carry
        logits = jax.lax.dynamic_index_in_dim(logits_of(ids), place - 1, axis=1, keepdims=False)
        drawn = jax.vmap(lambda row, own: sampling(row[None], jax.random.fold_in(own, place))[0])(logits, keys)
        writes = (place >= lengths) & ~done
        column = jnp.where(writes, drawn, jax.lax.dynamic_index_in_dim(ids, place, axis=1, keepdims=False))
        ids = jax.lax.dynamic_update_index_in_dim(ids, column, place, axis=1)
        return place + 1, ids, done | (writes & (drawn == end))

    def going(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[0] < count) & ~carry[2].all()

    start = jnp.maximum(lengths.min(), 1), ids, jnp.zeros(len(ids), bool)
    return jax.lax.while_loop(going, turn, start)[1]
