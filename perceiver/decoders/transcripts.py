"""What is said: letters at every step of time."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.config import preprocessing_field
from perceiver.decoders.heads import Head, LinearHead
from perceiver.errors import ConfigError, InputError
from perceiver.typing import Int

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
"""What English is written with, in small letters."""


@dataclasses.dataclass(frozen=True)
class CTC(Head):
    """Logits of the blank and of each letter at every query, which are steps of time: see `perceiver.ctc`.

    The queries are the tokens of a sound, FromTokens, or steps spaced evenly over its whole budget, a Grid of one axis.

    alphabet: the letters, each once; the first has id 1, as the blank has 0. A space parts words.
    """

    alphabet: str = preprocessing_field(default=LETTERS)

    def __post_init__(self) -> None:
        if not self.alphabet or len(set(self.alphabet)) < len(self.alphabet):
            raise ConfigError(f"CTC.alphabet: expected letters, each once, got {self.alphabet!r}")

    def build(self, channels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> LinearHead:
        """See Head."""
        return LinearHead(channels, len(self.alphabet) + 1, dtype=dtype, rngs=rngs)

    def encode(self, text: str) -> Int[np.ndarray, "n"]:
        """The ids of a text, int32.

        Raises:
            InputError: a letter that is not in the alphabet.
        """
        unknown = sorted(set(text) - set(self.alphabet))
        if unknown:
            raise InputError(f"expected letters of {self.alphabet!r}, got {''.join(unknown)!r} in {text!r:.80}")
        return np.array([self.alphabet.index(letter) + 1 for letter in text], np.int32)

    def decode(self, ids: Sequence[int] | Int[np.ndarray, "n"]) -> str:
        """The text of ids; blanks say nothing."""
        return "".join(self.alphabet[number - 1] for number in ids if number > 0)
