"""Letters one by one from what is heard: a causal decoder that looks at the latents of a sound.

As Whisper (arXiv 2212.04356) and Listen, Attend and Spell (1508.01211) write, beside the CTC output of the same
latents, which says when each letter is said; trained on both, as in hybrid CTC/attention (1609.06773).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.attention import Block, CrossAttend, split_key
from perceiver.causal import CausalText
from perceiver.ctc import BLANK
from perceiver.decoders.transcripts import CTC
from perceiver.errors import ConfigError, InputError
from perceiver.model import Compute, Latents, Model, ModelConfig, PerceiverConfig
from perceiver.tokens import Tokens, check_array
from perceiver.typing import Array, Bool, Float, Int

END = BLANK
"""The id behind a text, and of padding: what is the blank of CTC."""


@dataclasses.dataclass(frozen=True)
class SpellerConfig(ModelConfig):
    """A recogniser that spells.

    hearing: the Perceiver, whose output `output` is CTC. text: the decoder; its ids are END, the CTC's letters, and one
    with which every text starts. Its `max_length` holds the start and the longest text; what is longer ends there.
    look: the cross-attend to the latents in front of each of its layers.
    """

    hearing: PerceiverConfig
    text: CausalText
    look: Block = Block(heads=4)
    output: str = "text"

    def __post_init__(self) -> None:
        head = getattr(self.hearing.outputs.get(self.output), "head", None)
        if not isinstance(head, CTC):
            raise ConfigError(f"SpellerConfig.output: expected the name of an output CTC, got {self.output!r}")
        if self.text.vocabulary != len(head.alphabet) + 2:
            raise ConfigError(
                f"SpellerConfig.text: expected a vocabulary of {len(head.alphabet) + 2}, the end, the letters and the "
                f"start, got {self.text.vocabulary}"
            )

    @property
    def compute(self) -> Compute:  # type: ignore[override]
        """As the Perceiver's."""
        return self.hearing.compute

    @property
    def head(self) -> CTC:
        """The letters."""
        head = self.hearing.outputs[self.output].head
        assert isinstance(head, CTC)  # __post_init__ saw to it
        return head

    @property
    def start(self) -> int:
        """The id with which texts start."""
        return self.text.vocabulary - 1

    def initial(self, key: jax.Array) -> "Speller":
        """See ModelConfig."""
        return Speller(self, nnx.Rngs(key))


class Speller(Model):
    """See SpellerConfig."""

    def __init__(self, config: SpellerConfig, rngs: nnx.Rngs):
        dtype, depth, width = config.compute.dtype, config.text.depth, config.text.channels
        self.config = config
        self.hearing = config.hearing.initial(rngs.params())
        self.text = config.text.build(dtype=dtype, rngs=rngs)
        channels = config.hearing.encoder.channels
        self.looks = nnx.List([CrossAttend(width, channels, config.look, dtype=dtype, rngs=rngs) for _ in range(depth)])

    def read(self, latents: Latents, ids: Int[Array, "b n"], *, key: jax.Array | None = None) -> Float[Array, "b n v"]:
        """Logits of the id behind each position, float32, from the latents of `hearing.encode`.

        ids: the start, and letters. key: for dropout in training.

        Raises:
            InputError: no integers [b, n], or more than the decoder takes.
        """
        check_array(ids, (latents.values.shape[0], "n"), "iu")
        text_key, *keys = split_key(key, 1 + len(self.looks))
        heard = Tokens(latents.values, latents.mask)
        return self.text(ids, between=lambda number, x: self.looks[number](x, heard, key=keys[number]), key=text_key)


def shifted(labels: Int[Array, "b n"], start: int) -> Int[Array, "b n"]:
    """What stands in front of each letter: the start, then the letters; behind a text padding."""
    return jnp.concatenate([jnp.full_like(labels[:, :1], start), labels[:, :-1]], axis=1)


def told(labels: Int[Array, "b n"]) -> Bool[Array, "b n"]:
    """Which places are to be foretold: all letters, and the end behind them where there is room."""
    return jnp.arange(labels.shape[1]) <= (labels != END).sum(axis=1, keepdims=True)


def spell(model: Speller, latents: Latents, width: int = 1) -> list[tuple[tuple[int, ...], bool]]:
    """The letters of each sound of a batch, and whether the text ended before there was no more room for it.

    width: texts that are kept at each letter; 1 takes the likeliest letter each time. Texts are compared by their
    log-probability over their length, the end included, as longer ones would never win.

    Raises:
        InputError: a width below 1.
    """
    if width < 1:
        raise InputError(f"width: expected at least 1 text, got {width}")
    graph, state = nnx.split(model)
    batch, most = latents.values.shape[0], model.config.text.max_length
    ids = np.full((batch, width, most), END, np.int32)
    ids[:, :, 0] = model.config.start
    scores = np.where(np.arange(width) == 0, 0.0, -np.inf)[None].repeat(batch, axis=0)  # at first all are the same
    done = np.zeros((batch, width), bool)
    for place in range(1, most):
        logs = np.asarray(_next(graph, state, latents, ids.reshape(-1, most), place - 1, width), np.float64)
        logs = logs.reshape(batch, width, -1)[:, :, : model.config.start]  # the start never comes again
        logs = np.where(done[..., None], np.where(np.arange(logs.shape[-1]) == END, 0.0, -np.inf), logs)
        ids, scores, done = _kept(ids, scores, done, logs, place)
        if done.all():
            break
    lengths = (ids[:, :, 1:] != END).sum(axis=2) + done
    best = (scores / np.maximum(lengths, 1)).argmax(axis=1)
    return [
        (tuple(int(letter) for letter in ids[row, one, 1:] if letter != END), bool(done[row, one]))
        for row, one in enumerate(best)
    ]


def _kept(
    ids: np.ndarray, scores: np.ndarray, done: np.ndarray, logs: np.ndarray, place: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best continuations of all texts of each sound."""
    width, letters = logs.shape[1:]
    longer = (scores[..., None] + logs).reshape(len(ids), -1)
    chosen = np.argsort(-longer, axis=1, kind="stable")[:, :width]
    parent, letter = chosen // letters, (chosen % letters).astype(np.int32)
    ids = np.take_along_axis(ids, parent[..., None], axis=1)
    ids[:, :, place] = letter
    done = np.take_along_axis(done, parent, axis=1) | (letter == END)
    return ids, np.take_along_axis(longer, chosen, axis=1), done


@functools.partial(jax.jit, static_argnames=("graph", "width"))
def _next(graph: nnx.GraphDef, state: nnx.State, latents: Latents, ids, place, width: int) -> Array:
    """Log-probabilities [b * width, v] of the id behind a place; each sound has `width` rows."""
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), latents)
    logits = nnx.merge(graph, state).read(repeated, ids)
    return jax.nn.log_softmax(jax.lax.dynamic_index_in_dim(logits, place, axis=1, keepdims=False), axis=-1)
