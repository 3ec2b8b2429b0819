"""Teaching a model to foretell text, and judging it: windows behind prefixes of any length, nats of every byte.

A model that foretells few places at once, as Perceiver AR does, would never learn how a text begins if it always read
as much as it can. So the prefix in front of the places is drawn anew for each row of a batch, which is a number and no
shape: nothing recompiles, and loss is taken at every place as often as at any other (arXiv 2202.07765, section 4.2).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.text import BOS, PAD, SPECIALS
from perceiver.autoregressive import Autoregressive
from perceiver.causal import Language
from perceiver.errors import ConfigError, InputError
from perceiver.narrator import Narrator
from perceiver.objectives import accuracy, cross_entropy
from perceiver.pipeline import Batch, Sample, in_batches
from perceiver.typing import Array, Float, Int

BATCH = 16
"""Windows of one compiled call when a text is judged."""


@dataclasses.dataclass(frozen=True)
class Window:
    """length: ids that are read, the one that begins a text among them. count: places that are foretold at once."""

    length: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.length:
            raise ConfigError(f"Window.count: expected 1 to the length {self.length}, got {self.count}")

    @property
    def longest(self) -> int:
        """Bytes of the longest prefix."""
        return self.length - self.count

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Those to draw from in training: `count` apart, so that every place is foretold, and equally often where
        `count` divides `length`.
        """
        return tuple(sorted({*range(0, self.longest, self.count), self.longest}))

    def row(self, text: bytes, place: int, prefix: int) -> Sample:
        """Bytes from a place on, to be foretold from so many in front of them and from each other.

        inputs "text": int32 [length], BOS, the prefix and what follows, padding where the text has ended. inputs
        "first": the place in the row of the first that is foretold. targets "text": int32 [count], what stands there,
        PAD behind the text's end.

        Raises:
            InputError: a prefix that is longer than the window takes, or than what is in front of the place.
        """
        if not 0 <= prefix <= min(self.longest, place):
            raise InputError(f"prefix: expected 0 to {min(self.longest, place)} bytes, got {prefix}")
        here = np.frombuffer(text, np.uint8, self._readable(text, place - prefix), place - prefix)
        ids = np.full(self.length + 1, PAD, np.int32)
        ids[0], ids[1 : len(here) + 1] = BOS, here.astype(np.int32) + SPECIALS
        inputs = {"text": ids[:-1], "first": np.int32(prefix)}
        return {"inputs": inputs, "targets": {"text": ids[prefix + 1 : prefix + 1 + self.count]}}

    def _readable(self, text: bytes, start: int) -> int:
        return min(self.length, len(text) - start)

    def drawn(self, source: "Places", rng: np.random.Generator) -> Sample:
        """A row for training. source: an item of Places; its prefix is drawn, and it is read from the place on."""
        prefix = int(rng.choice(self.prefixes))
        return self.row(source.text, source.start + prefix, prefix)


@dataclasses.dataclass(frozen=True)
class Places(Sequence["Places"]):
    """A text's windows, one from each byte on that has as many behind it. start: of the present one."""

    text: bytes
    length: int
    start: int = 0

    def __len__(self) -> int:
        return max(len(self.text) - self.length + 1, 0)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return dataclasses.replace(self, start=int(index))


def logits_at(
    model: Autoregressive | Language,
    ids: Int[Array, "b n"],
    first: Int[Array, "b"],
    count: int,
    key: jax.Array | None = None,
) -> Float[Array, "b c v"]:
    """Logits of what follows `count` places of each row, from its `first` on; key: of what training hides."""
    if isinstance(model, Language):
        logits = model(ids, key=key)
    elif model.config.looks:
        return model(ids, first=first, count=count * model.config.each, key=key).logits
    else:  # latents that know of nothing but each other: as many as there are places
        every = ids.shape[1] * model.config.each
        logits = model(ids, first=jnp.zeros_like(first), count=every, key=key).logits
    return jnp.take_along_axis(logits, (first[:, None] + jnp.arange(count))[..., None], axis=1)


@dataclasses.dataclass(frozen=True)
class Foretelling:
    """An objective: nats of a byte, at `count` places of each of Window's rows. Metrics: the share that is likeliest.

    The model is an Autoregressive with as many places' latents, or one that may foretell all places at once, which is a
    Language, or an Autoregressive without looks.
    """

    count: int

    def __call__(self, model: Any, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
        """See `training.experiment.Objective`."""
        wanted = jnp.asarray(batch["targets"]["text"])
        logits = logits_at(model, batch["inputs"]["text"], jnp.asarray(batch["inputs"]["first"]), self.count, key)
        real = wanted != PAD
        return cross_entropy(logits, wanted, real), {"accuracy": accuracy(logits, wanted, real)}


def telling(model: Narrator, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
    """The objective: nats of each byte of batch["targets"]["text"], rows of `narrator.row_of`, the end included.

    A row has at most one id more than the text model has places with latents. Metrics: the share that is likeliest.
    """
    ids = jnp.asarray(batch["targets"]["text"])
    first = jnp.zeros(len(ids), jnp.int32)
    count = (ids.shape[1] - 1) * model.config.text.each
    told = model(batch["inputs"], ids[:, :-1], batch.get("masks"), first=first, count=count, key=key)
    real = ids[:, 1:] != PAD
    return cross_entropy(told.logits, ids[:, 1:], real), {"accuracy": accuracy(told.logits, ids[:, 1:], real)}


def nats(model: Any, rows: Iterator[Sample] | Sequence[Sample], batch: int = BATCH) -> Float[np.ndarray, "n count"]:
    """Of each place of each row, float64; 0 behind a text's end. Compiled once."""
    graph, state = nnx.split(model)
    found = [
        np.asarray(_nats(graph, state, part["inputs"]["text"], part["inputs"]["first"], part["targets"]["text"]))[:real]
        for part, real in in_batches(list(rows), batch)
    ]
    return np.concatenate(found).astype(np.float64)


@functools.partial(jax.jit, static_argnames="graph")
def _nats(graph: nnx.GraphDef, state: nnx.State, ids: Array, first: Array, wanted: Array) -> Float[Array, "b c"]:
    logits = logits_at(nnx.merge(graph, state), ids, first, wanted.shape[1])
    likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), wanted[..., None], axis=-1)[..., 0]
    return jnp.where(wanted == PAD, 0.0, -likelihood)


def nats_of_text(model: Any, text: bytes, window: Window, batch: int = BATCH) -> Float[np.ndarray, "n"]:
    """Nats of each byte of a text, once each: from all in front of it, or from `window.longest` bytes at least.

    A window slides over the text by its `count`, so that a byte is foretold from `longest` to `length` - 1 bytes.

    Raises:
        InputError: an empty text.
    """
    if not text:
        raise InputError("text: expected at least one byte, got none")
    places = range(0, len(text), window.count)
    rows = [window.row(text, place, min(place, window.longest)) for place in places]
    return nats(model, rows, batch).ravel()[: len(text)]


def nats_by_prefix(
    model: Any, text: bytes, window: Window, prefixes: Sequence[int], most: int = 128, batch: int = BATCH
) -> Float[np.ndarray, "p n"]:
    """Mean nats of a byte in the same stretches of a text, for each length of what is read in front of them.

    most: stretches, evenly spaced. The numbers of one column are of the same bytes, so that their differences are due
    to the prefix alone.

    Raises:
        InputError: a text too short for a single stretch.
    """
    starts = np.arange(window.longest, len(text) - window.count + 1, window.count)
    if not len(starts):
        raise InputError(f"text: expected at least {window.length} bytes, got {len(text)}")
    chosen = starts[np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(int)]
    return np.stack(
        [nats(model, [window.row(text, int(at), prefix) for at in chosen], batch).mean(axis=1) for prefix in prefixes]
    )
