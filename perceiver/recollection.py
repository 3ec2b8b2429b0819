"""Writing by an autoregressive Perceiver without reading everything again: keys and values are kept from id to id."""

import dataclasses

import jax
import jax.numpy as jnp

from perceiver.attention import CrossAttend, Memory, Stack
from perceiver.autoregressive import Autoregressive
from perceiver.autoregressive_positions import Order, Table
from perceiver.errors import ConfigError
from perceiver.tokens import Tokens
from perceiver.typing import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recollection:
    """first: the place of the first latent, int32; -1 before anything was read. parts: what each of a model's parts has
    seen: a look the ids, a stack of self-attends the latents, both in the columns of their places. Where there are more
    places than columns, the newest replace the oldest.
    """

    first: Int[Array, ""]
    parts: tuple[Memory, ...]


def blank(model: Autoregressive, batch: int, ids: int | None = None, latents: int | None = None) -> Recollection:
    """Nothing read yet. ids, latents: columns; None takes the model's budget and its number of latents.

    Raises:
        ConfigError: places are added to the ids' vectors and counted from the end, so that every key changes each time.
    """
    config = model.config
    if isinstance(config.positions, Table) and config.order is Order.BACKWARD:
        raise ConfigError("nothing can be kept where a table counts places from the end; use Order.FORWARD")
    columns = config.text.max_length if ids is None else ids, config.latents if latents is None else latents
    return Recollection(jnp.int32(-1), tuple(_blank(part, batch, *columns) for part in model.parts))


def _blank(part: CrossAttend | Stack, batch: int, ids: int, latents: int) -> Memory:
    attention = part.attention if isinstance(part, CrossAttend) else part.layers.attention
    shape: tuple[int, ...] = (batch, ids if isinstance(part, CrossAttend) else latents, attention.heads)
    shape = shape if isinstance(part, CrossAttend) else (part.depth, *shape)
    widths = attention.key.out_features // attention.heads, attention.value.out_features // attention.heads
    dtype = attention.query.dtype
    return Memory(*(jnp.zeros((*shape, width), dtype) for width in widths))


def step(
    model: Autoregressive,
    kept: Recollection,
    ids: Int[Array, "b n"],
    place: Int[Array, ""],
    *,
    about: Tokens | None = None,
) -> tuple[Recollection, Float[Array, "b v"]]:
    """What follows `ids[:, place]`, in one step. ids: as many columns as the recollection has, right up to the place.
    about: as for a call of the model.

    Of what a model has read before only the newest place is new; when `AutoregressiveConfig.window` moves on, and at
    the start, all is read again. The logits are those of a call with `first` where the window is.
    """
    first = model.config.window(place).astype(jnp.int32)
    kept = jax.lax.cond(kept.first == first, lambda: kept, lambda: read_again(model, kept, ids, first, about=about))
    column = jax.lax.dynamic_slice_in_dim(ids, place, 1, axis=1)
    return extend(model, kept, column, place, about=about)


def read_again(
    model: Autoregressive,
    kept: Recollection,
    ids: Int[Array, "b n"],
    first: Int[Array, ""] | int,
    numbers: Int[Array, "b n axes"] | None = None,
    *,
    about: Tokens | None = None,
) -> Recollection:
    """All ids, and latents from a place on; those behind the last real id are replaced when `extend` comes to them."""
    first = jnp.asarray(first, jnp.int32)
    numbers = _counted(model, jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)) if numbers is None else numbers
    reading = model.read(ids, first=jnp.broadcast_to(first, (len(ids),)), numbers=numbers, about=about)
    angles = [model.angles(part, reading.stand) for part in model.parts]
    x, memories = reading.queries, []
    for part, own, memory in zip(model.parts, angles, kept.parts, strict=True):
        if isinstance(part, CrossAttend):
            memory = part.remember(reading.vectors, model.angles(part, reading.numbers[..., 0]))
            x = part.recall(x, memory, reading.sees, own)
        else:
            x, memory = part.extend(x, memory, 0, reading.knows, own)
        memories.append(memory)
    return Recollection(first, tuple(memories))


def extend(
    model: Autoregressive,
    kept: Recollection,
    column: Int[Array, "b 1"],
    place: Int[Array, ""] | int,
    numbers: Int[Array, "b 1 axes"] | None = None,
    *,
    about: Tokens | None = None,
) -> tuple[Recollection, Float[Array, "b v"]]:
    """One more id and its latents, of the texts that were read up to it; and what follows.

    numbers: of the place, if not counted as configured.
    """
    each, slot = model.config.each, place - kept.first
    numbers = _counted(model, jnp.full_like(column, place)) if numbers is None else numbers
    vectors = model.embed(column, numbers)
    x = model.start(vectors, slot * each + jnp.arange(each), about)
    stand = model.standing(jnp.repeat(numbers[..., 0], each, axis=1))
    memories = []
    for part, memory in zip(model.parts, kept.parts, strict=True):
        angles, columns = model.angles(part, stand), memory.keys.shape[-3]
        if isinstance(part, CrossAttend):
            new = part.remember(vectors, model.angles(part, numbers[..., 0]))
            memory = memory.written(new, place % columns)
            x = part.recall(x, memory, _filled(columns, place + 1), angles)
        else:
            x, memory = part.extend(x, memory, slot * each % columns, _filled(columns, (slot + 1) * each), angles)
        memories.append(memory)
    return Recollection(kept.first, tuple(memories)), model.answer(x)[:, 0]


def _filled(columns: int, count: Int[Array, ""] | int) -> Bool[Array, "1 1 k"]:
    return (jnp.arange(columns) < count)[None, None]


def _counted(model: Autoregressive, places: Int[Array, "b n"]) -> Int[Array, "b n 1"]:
    """Numbers of places, up to the same for all, which is all that rotary angles tell."""
    return (places if model.config.order is Order.FORWARD else -places)[..., None]
