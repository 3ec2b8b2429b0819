"""Writing text id by id: how the next id is drawn, and the loop that draws them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Array, Bool, Float, Int, UInt
from perceiver.watermark import Watermark

Step = Callable[[Any, Array, Array], tuple[Any, Array]]
"""(what is kept, ids [b, n], place) -> (what is kept, logits [b, v] of the id that follows that place)."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How an id is drawn.

    temperature: logits are divided by it; 0 takes the likeliest. top_k: among so many of the likeliest. top_p: among
    the fewest that have this much of the probability (arXiv 1904.09751). None draws among all. repetition: ids that the
    text has already have their logits divided by it, or multiplied where below 0 (arXiv 1909.05858); 1 changes nothing.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition: float = 1.0
    watermark: Watermark | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"Sampling.temperature: expected 0 or more, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"Sampling.top_k: expected at least 1, got {self.top_k}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"Sampling.top_p: expected above 0 and up to 1, got {self.top_p}")
        if not 0.0 < self.repetition < float("inf"):
            raise ConfigError(f"Sampling.repetition: expected above 0, got {self.repetition}")
        if self.watermark is not None and self.temperature == 0.0:
            raise ConfigError("Sampling.watermark: expected a temperature above 0, which leaves a choice, got 0")

    def __call__(
        self,
        logits: Float[Array, "b v"],
        key: jax.Array,
        seen: Bool[Array, "b v"] | None = None,
        coins: UInt[Array, "b v"] | None = None,
        marked: Bool[Array, "b"] | None = None,
    ) -> Int[Array, "b"]:
        """One id for each row, int32.

        seen: the ids that its text has already. coins, marked: of the watermark, see `Watermark.coins`.
        """
        if seen is not None and self.repetition != 1.0:
            weaker = jnp.where(logits > 0.0, logits / self.repetition, logits * self.repetition)
            logits = jnp.where(seen, weaker, logits)
        if self.temperature == 0.0:
            return logits.argmax(axis=-1).astype(jnp.int32)
        logits = self.kept(logits)
        if self.watermark is not None and coins is not None and marked is not None:
            drawn = self.watermark.drawn_by(jax.nn.softmax(logits), coins)
            logits = jnp.where(marked[:, None], jnp.log(drawn), logits)
        return jax.random.categorical(key, logits).astype(jnp.int32)

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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draft:
    """Rows of text that are being written.

    ids: [b, n], padding behind what is written. place: the column that comes next. lengths: [b], of what was given.
    limits: [b], columns that a row may fill. done: [b], rows that are finished. kept: what the model keeps.
    """

    ids: Int[Array, "b n"]
    place: Int[Array, ""]
    lengths: Int[Array, "b"]
    limits: Int[Array, "b"]
    done: Bool[Array, "b"]
    kept: Any


def begin(ids: Int[Array, "b n"], lengths: Int[Array, "b"], limits: Int[Array, "b"], padding: int, kept: Any) -> Draft:
    """Rows of which `lengths` ids are given, at least one.

    Raises:
        InputError: lengths of another shape.
    """
    if lengths.shape != ids.shape[:1]:
        raise InputError(f"lengths: expected {ids.shape[:1]}, got {lengths.shape}")
    ids = jnp.where(jnp.arange(ids.shape[1]) < lengths[:, None], ids, padding)
    return Draft(ids, jnp.maximum(lengths.min(), 1), lengths, limits, lengths >= limits, kept)


def go_on(step: Step, draft: Draft, until: Int[Array, ""] | int, sampling: Sampling, key: jax.Array, end: int) -> Draft:
    """Fill rows up to a column, or up to and with the first `end`. Can be compiled, with `until` traced.

    Each row draws its own randomness at each place, so that it matters neither what else is written nor in how many
    pieces.
    """
    batch = draft.ids.shape[0]
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))

    def turn(draft: Draft) -> Draft:
        place, ids = draft.place, draft.ids
        kept, logits = step(draft.kept, ids, place - 1)
        own = jax.vmap(lambda row: jax.random.fold_in(row, place))(keys)
        vocabulary, mark = logits.shape[-1], sampling.watermark
        seen = None if sampling.repetition == 1.0 else _seen(ids, place, vocabulary)
        coins, marked = (None, None) if mark is None else mark.coins(ids, place, vocabulary)
        # a key belongs to a row, so each row is drawn alone; what is None has no leaves
        rows = jax.tree.map(lambda leaf: leaf[:, None], (logits, seen, coins, marked))
        drawn = jax.vmap(lambda row, key: sampling(row[0], key, *row[1:]))(rows, own)[:, 0]
        writes = (place >= draft.lengths) & ~draft.done
        column = jnp.where(writes, drawn, jax.lax.dynamic_index_in_dim(ids, place, axis=1, keepdims=False))
        ids = jax.lax.dynamic_update_index_in_dim(ids, column, place, axis=1)
        done = draft.done | (writes & (drawn == end)) | (place + 1 >= draft.limits)
        return Draft(ids, place + 1, draft.lengths, draft.limits, done, kept)

    return jax.lax.while_loop(lambda draft: (draft.place < until) & ~draft.done.all(), turn, draft)


def _seen(ids: Int[Array, "b n"], place: Int[Array, ""], vocabulary: int) -> Bool[Array, "b v"]:
    """Which ids stand in front of a place."""
    rows = jnp.arange(ids.shape[0])[:, None]
    there = jnp.broadcast_to(jnp.arange(ids.shape[1]) < place, ids.shape)
    return jnp.zeros((ids.shape[0], vocabulary), bool).at[rows, ids].max(there)


def reading_all(logits_of: Callable[[Int[Array, "b n"]], Float[Array, "b n v"]]) -> Step:
    """A step of a causal model that keeps nothing, and reads all ids again for each new one."""
    return lambda kept, ids, place: (
        kept,
        jax.lax.dynamic_index_in_dim(logits_of(ids), place, axis=1, keepdims=False),
    )


def write(
    step: Step,
    kept: Any,
    ids: Int[Array, "b n"],
    lengths: Int[Array, "b"],
    sampling: Sampling,
    key: jax.Array,
    end: int,
    padding: int,
) -> Int[Array, "b n"]:
    """Fill rows of ids from their own lengths on, up to and with the first `end`; padding behind it. Can be compiled.

    step, kept: of the model, and what it keeps at the start. Errors as for `begin`.
    """
    count = ids.shape[1]
    draft = begin(ids, lengths, jnp.full(lengths.shape, count), padding, kept)
    return go_on(step, draft, count, sampling, key, end).ids
