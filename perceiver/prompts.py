"""How a text becomes the fixed number of token ids that a text tower was trained on."""

import dataclasses
import enum
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from perceiver.adapters.text import Subwords
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError
from perceiver.typing import Int


class Wording(enum.Enum):
    """What is done to a text before the tokenizer sees it."""

    AS_IS = "nothing (CLIP, whose tokenizer does the rest)"
    LOWER = "lower case (SigLIP 2)"
    BARE = "lower case, without ASCII punctuation, single spaces (SigLIP)"

    def __call__(self, text: str) -> str:
        """Apply it."""
        return _WORDINGS[self](text)


def _bare(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(str.maketrans("", "", string.punctuation))).strip()


_WORDINGS: dict[Wording, Callable[[str], str]] = {
    Wording.AS_IS: lambda text: text,
    Wording.LOWER: str.lower,
    Wording.BARE: _bare,
}


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Strings to ids of a Hugging Face tokenizer (extra `text`).

    tokenizer: the content of a tokenizer.json, kept in the model folder. It puts special tokens around the text.
    padding: the id behind the text. wording: what is done to the text before.
    """

    tokenizer: str = preprocessing_field()
    padding: int = preprocessing_field(default=0)
    wording: Wording = preprocessing_field(default=Wording.AS_IS)

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ConfigError(f"Prompts.padding: expected an id, got {self.padding}")

    def encode(self, texts: Sequence[str], length: int) -> Int[np.ndarray, "n length"]:
        """Ids, int32 [n, length]: padded behind; a longer text loses what is before its last special token.

        Raises:
            InputError: no list of strings.
            MissingExtraError: tokenizers is not installed.
            ConfigError: `tokenizer` is not the content of a tokenizer.json.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(f"expected a list of strings, got {texts!r:.80}")
        codec = Subwords(length, self.tokenizer)
        rows = np.full((len(texts), length), self.padding, np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = codec.encode(self.wording(text))
            kept = ids if len(ids) <= length else np.append(ids[: length - 1], ids[-1])
            row[: len(kept)] = kept
        return rows
