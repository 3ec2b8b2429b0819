"""Texts that go on from prompts, told in pieces as they are written, up to an end, a stop string or a length."""

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from perceiver.adapters.text import BOS, EOS, Bytes, Text, encode_bytes
from perceiver.autoregressive import Autoregressive
from perceiver.errors import ConfigError, InputError, naming
from perceiver.generation import DRAWN, Draft, Sampling, begin, go_on
from perceiver.recollection import blank, step
from perceiver.tokens import Tokens

CHUNK = 16
"""Ids that are written between two looks at what there is."""
UNFINISHED = "\ufffd"
"""What stands for bytes that are no UTF-8, or not yet."""


class Ended(enum.Enum):
    """Why a text ended."""

    END = "the model ended it"
    STOP = "a stop string came"
    LENGTH = "it is as long as was asked for"
    BUDGET = "the model takes no more ids"


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be written.

    most: ids beyond the prompt; None: as many as the model takes. sampling: how each is drawn, by which seed. stop:
    strings in front of which a text ends; of several the one that is complete first.
    """

    most: int | None = None
    sampling: Sampling = DRAWN
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ConfigError(f"Wish.most: expected at least 1, got {self.most}")
        if "" in self.stop:
            raise ConfigError("Wish.stop: expected strings with letters in them, got an empty one")


class Piece(NamedTuple):
    """What was written of a row since the last piece, and why it ended, once it has."""

    row: int
    text: str
    ended: Ended | None


class Continued(NamedTuple):
    """A whole text behind its prompt."""

    text: str
    ended: Ended


ANYTHING = Wish()
"""As many ids as there is room for, each by its own probability."""


def continued(
    model: Any, prompts: Sequence[str], wish: Wish = ANYTHING, about: Tokens | None = None
) -> list[Continued]:
    """Write on from each prompt; see `stream`."""
    return joined(stream(model, prompts, wish, about), len(prompts))


def joined(pieces: Iterable[Piece], count: int) -> list[Continued]:
    """The whole texts of so many rows, from all of their pieces."""
    texts, ends = [""] * count, [Ended.BUDGET] * count
    for piece in pieces:
        texts[piece.row] += piece.text
        ends[piece.row] = piece.ended or ends[piece.row]
    return [Continued(*row) for row in zip(texts, ends, strict=True)]


def stream(model: Any, prompts: Sequence[str], wish: Wish = ANYTHING, about: Tokens | None = None) -> Iterator[Piece]:
    """Write on from each prompt, all at once, and tell what is new as it comes.

    model: an Autoregressive whose ids are of a text. The prompts may differ in length; what is written of one depends
    on its number and the seed, but not on the other prompts. An empty prompt, with Bytes, lets the model start. Bytes
    that are no UTF-8 show as U+FFFD; nothing is told of a letter before all of its bytes are there. about: what each of
    the texts is about, for a model that takes it.

    Raises:
        InputError: no such model, no prompts, or one that leaves no room; or `about` missing or not expected.
    """
    if not isinstance(model, Autoregressive) or not isinstance(model.config.text, Text):
        raise InputError(f"expected an autoregressive model of text, got {type(model).__name__}")
    if not prompts:
        raise InputError("prompts: expected at least one, got none")
    text = model.config.text
    starts = []
    for number, prompt in enumerate(prompts):
        with naming(f"prompt {number}"):
            starts.append(_opening(text, prompt))
    if (about is None) != (model.config.about is None) or (about is not None and len(about.values) != len(prompts)):
        expected = "nothing" if model.config.about is None else f"what each of {len(prompts)} texts is about"
        raise InputError(f"about: expected {expected}, got {'nothing' if about is None else about.values.shape}")
    graph, state = nnx.split(model)
    end = EOS if isinstance(text, Bytes) else text.padding

    def go(draft: Draft, until: Any, key: jax.Array) -> Draft:
        return _go_on(graph, state, draft, until, key, wish.sampling, end, about)

    return pieces(Rows(functools.partial(_begin, graph, state), go, text, end), starts, wish)


class Rows(NamedTuple):
    """How a model writes rows of ids.

    begin: (ids [b, n], lengths [b], limits [b], padding) to a Draft. go_on: (draft, the column to stop at, key) to one
    that is further. text: what the ids mean, and how many there may be. end: the id that ends a text.
    """

    begin: Callable[[Any, Any, Any, int], Draft]
    go_on: Callable[[Draft, Any, jax.Array], Draft]
    text: Text
    end: int


def _opening(text: Text, prompt: str) -> np.ndarray:
    """The ids of a prompt, int32 [n]; those of Bytes begin with BOS."""
    ids = (
        np.append(np.int32(BOS), encode_bytes(prompt, text.special)) if isinstance(text, Bytes) else text.encode(prompt)
    )
    if not 0 < len(ids) < text.max_length:
        raise InputError(f"expected 1 to {text.max_length - 1} tokens, to leave room for more, got {len(ids)}")
    return ids


def pieces(rows: Rows, starts: Sequence[np.ndarray], wish: Wish) -> Iterator[Piece]:
    """Write on from each row of ids, int32 [n] of any lengths, and tell what is new as it comes."""
    text, end = rows.text, rows.end
    ids = np.full((len(starts), text.max_length), text.padding, np.int32)
    for row, start in enumerate(starts):
        ids[row, : len(start)] = start
    lengths = np.array([len(start) for start in starts], np.int32)
    most = text.max_length if wish.most is None else wish.most
    limits = np.minimum(lengths + most, text.max_length).astype(np.int32)
    key = jax.random.key(wish.seed)
    draft = rows.begin(ids, lengths, limits, text.padding)
    told, open_rows = [""] * len(starts), set(range(len(starts)))
    while open_rows:
        draft = rows.go_on(draft, draft.place + CHUNK, key)
        there, place = np.asarray(draft.ids), int(draft.place)
        for row in sorted(open_rows):
            written = there[row, lengths[row] : max(min(place, limits[row]), lengths[row])]
            ended = (
                None if place < limits[row] else Ended.LENGTH if limits[row] == lengths[row] + most else Ended.BUDGET
            )
            if (written == end).any():
                written, ended = written[: (written == end).argmax()], Ended.END
            whole, ended = _until_stop(text.decode(written), wish.stop, ended)
            if len(whole) > len(told[row]) or ended:
                yield Piece(row, whole[len(told[row]) :], ended)
            told[row] = whole
            open_rows -= {row} if ended else set()
        stopped = np.array([row not in open_rows for row in range(len(starts))])
        draft = dataclasses.replace(draft, done=draft.done | stopped)


def _until_stop(text: str, stops: Sequence[str], ended: Ended | None) -> tuple[str, Ended | None]:
    """What may be told: without a stop string, and without what may yet become one or a letter."""
    found = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    if found:
        complete, negative = min(found)
        return text[: complete + negative], Ended.STOP
    if ended is not None:
        return text, ended
    text = text.rstrip(UNFINISHED)
    begun = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return text[: len(text) - max(begun, default=0)], None


@functools.partial(jax.jit, static_argnames=("graph", "padding"))
def _begin(graph: nnx.GraphDef, state: nnx.State, ids: Any, lengths: Any, limits: Any, padding: int) -> Draft:
    return begin(ids, lengths, limits, padding, blank(nnx.merge(graph, state), len(ids)))


@functools.partial(jax.jit, static_argnames=("graph", "sampling", "end"))
def _go_on(
    graph: nnx.GraphDef,
    state: nnx.State,
    draft: Draft,
    until: Any,
    key: jax.Array,
    sampling: Sampling,
    end: int,
    about: Tokens | None,
) -> Draft:
    model = nnx.merge(graph, state)
    return go_on(functools.partial(step, model, about=about), draft, until, sampling, key, end)
