"""Language models as what a search for letters asks: shallow fusion."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.text import BOS, SPECIALS, Bytes
from perceiver.autoregressive import Autoregressive
from perceiver.ctc import BLANK, Scorer
from perceiver.decoders.transcripts import CTC
from perceiver.errors import ConfigError, InputError
from perceiver.typing import Float

ROWS = 16
"""Texts of one compiled call."""
LENGTH = 256
"""Bytes that are looked at, at most: the last ones of a text."""


def letter_scorer(model: Autoregressive, head: CTC) -> Scorer:
    """What letters a language model expects behind texts; for `Beam.scorer`.

    The log-probabilities are those among all bytes, so that letters which the model would not write, such as small ones
    where it writes large ones, are all but ruled out: it should have learned texts that are written as the alphabet is.

    Raises:
        ConfigError: the model is none of bytes, or a letter of the alphabet takes more than one byte.
    """
    text = getattr(getattr(model, "config", None), "text", None)
    if not isinstance(model, Autoregressive) or not isinstance(text, Bytes):
        raise ConfigError(f"expected an autoregressive model of bytes, got {type(model).__name__}")
    wide = [letter for letter in head.alphabet if not letter.isascii()]
    if wide:
        raise ConfigError(f"expected an alphabet of letters of one byte, got {''.join(wide)!r}")
    columns = np.array([BOS, *(ord(letter) + SPECIALS for letter in head.alphabet)])  # a text starts with BOS
    length = min(LENGTH, text.max_length)
    graph, state = nnx.split(model)

    def scores(texts: Sequence[tuple[int, ...]]) -> Float[np.ndarray, "n v"]:
        found = []
        for start in range(0, len(texts), ROWS):
            some = [columns[[0, *text]][-length:] for text in texts[start : start + ROWS]]
            ids, lengths = np.full((ROWS, length), text.padding, np.int32), np.ones(ROWS, np.int32)
            for row, own in enumerate(some):
                ids[row, : len(own)], lengths[row] = own, len(own)
            found.append(np.asarray(_following(graph, state, ids, lengths))[: len(some), columns])
        whole = np.concatenate(found)
        whole[:, BLANK] = 0.0  # running text has no ends
        return whole

    return scores


def counted_scorer(texts: Sequence[str], head: CTC, order: int = 8) -> Scorer:
    """What letters follow which in some texts, their ends included; for `Beam.scorer`.

    Runs of up to `order` letters are counted, and shorter ones stand in for what is rare (Witten and Bell, IEEE Trans.
    Information Theory 37, 1991).

    Raises:
        InputError: no texts, or a letter that is not in the alphabet.
    """
    if not texts:
        raise InputError("texts: expected at least one to count the letters of, got none")
    width = len(head.alphabet) + 1
    counts: dict[tuple[int, ...], Float[np.ndarray, v]] = {}
    for text in texts:
        ids = (BLANK, *head.encode(text).tolist(), BLANK)  # the blank stands for both ends
        for place in range(1, len(ids)):
            for start in range(max(place - order + 1, 0), place + 1):
                counts.setdefault(ids[start:place], np.zeros(width))[ids[place]] += 1.0

    def following(before: tuple[int, ...]) -> Float[np.ndarray, "v"]:
        shares = np.full(width, 1.0 / width)
        for start in range(len(before), -1, -1):
            own = counts.get(before[start:])
            if own is None:
                break
            kinds = np.count_nonzero(own)
            shares = (own + kinds * shares) / (own.sum() + kinds)
        return np.log(shares)

    return lambda asked: np.stack([following((BLANK, *text)[-(order - 1) :]) for text in asked])


@functools.partial(jax.jit, static_argnames="graph")
def _following(graph: nnx.GraphDef, state: nnx.State, ids, lengths) -> Float[jax.Array, "b v"]:
    """Log-probabilities of the byte behind each row: what its last latent foretells."""
    return jax.nn.log_softmax(jnp.asarray(nnx.merge(graph, state)(ids, lengths).logits)[:, -1], axis=-1)
