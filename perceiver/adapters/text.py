"""Text: UTF-8 bytes, or subwords of a given tokenizer."""

import abc
import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import Adapter
from perceiver.adapters.ngrams import Ngrams
from perceiver.adapters.vocabulary import (
    BOS,
    BYTE_VOCABULARY,
    CLS,
    EOS,
    MASK,
    PAD,
    SEP,
    SPECIAL_NAMES,
    SPECIALS,
)
from perceiver.config import preprocessing_field
from perceiver.errors import ConfigError, InputError, require
from perceiver.positions import Learned, grid_at
from perceiver.tokens import Tokens, check_array, presence
from perceiver.typing import Array

_SPECIAL = re.compile("(" + "|".join(re.escape(name) for name in SPECIAL_NAMES) + ")")


def encode_bytes(text: str, special: bool = False) -> np.ndarray:
    """UTF-8 bytes as tokens, int32 [n].

    special: read the SPECIAL_NAMES in the text as one special token each (Hugging Face's PerceiverTokenizer) instead
        of as the bytes they are written with (DeepMind's BytesTokenizer).

    Raises:
        InputError: half of a surrogate pair, which UTF-8 cannot write.
    """
    parts = _SPECIAL.split(text) if special else [text]  # every second one is a name
    ids = [[SPECIAL_NAMES.index(part)] if place % 2 else _utf8(part) for place, part in enumerate(parts)]
    return np.concatenate(ids, dtype=np.int32)


def decode_bytes(tokens: np.ndarray, keep_special: bool = False) -> str:
    """Tokens back to text; invalid UTF-8 shows as U+FFFD, and special tokens are left out or shown by their names.

    Raises:
        InputError: tokens outside the vocabulary.
    """
    tokens = np.asarray(tokens, np.int64)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < BYTE_VOCABULARY:
        raise InputError(f"expected tokens in [0, {BYTE_VOCABULARY}), got {tokens.min()} to {tokens.max()}")
    names = [name.encode() if keep_special else b"" for name in SPECIAL_NAMES]
    pieces = [names[token] if token < SPECIALS else bytes([token - SPECIALS]) for token in tokens.ravel().tolist()]
    return b"".join(pieces).decode("utf-8", errors="replace")


def until_end(tokens: np.ndarray) -> tuple[str, bool]:
    """The text of tokens [n] in front of EOS, and whether there was one: without it the text was longer than n."""
    ends = np.flatnonzero(np.asarray(tokens) == EOS)
    return decode_bytes(tokens[: ends[0]] if len(ends) else tokens), len(ends) > 0


def _utf8(text: str) -> np.ndarray:
    try:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) + SPECIALS
    except UnicodeEncodeError as error:
        raise InputError(f"expected text that UTF-8 can write, got {text!r:.60}: {error.reason}") from None


class Text(Adapter):
    """What byte and subword text have in common: ids [b, n], a trained embedding plus trained positions.

    Mask: [b] for presence, or [b, n]; without the latter every padding id is masked.
    """

    max_length: int
    width: int
    scale: float
    ngrams: Ngrams | None = None

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """Number of ids."""

    @property
    @abc.abstractmethod
    def padding(self) -> int:
        """The id that fills the budget."""

    @abc.abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Text to ids, int32 [n], without padding."""

    @abc.abstractmethod
    def decode(self, ids: np.ndarray, keep_special: bool = False) -> str:
        """Ids to text; special tokens are left out, or shown by their names."""

    @property
    def tokens(self) -> int:
        """See Adapter."""
        return self.max_length

    @property
    def channels(self) -> int:
        """See Adapter."""
        return self.width

    def build(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> "TextTokens":
        """See Adapter."""
        return TextTokens(self, dtype=dtype, rngs=rngs)

    def example(self, batch: int) -> jax.ShapeDtypeStruct:
        """See Adapter."""
        return jax.ShapeDtypeStruct((batch, self.max_length), jnp.int32)

    def load(self, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Encode a string and pad it; mask [n].

        Raises:
            InputError: not a string, empty, or longer than `max_length`.
        """
        if not isinstance(source, str):
            raise InputError(f"expected a string, got {type(source).__name__}")
        ids = self.encode(source)
        if not 0 < len(ids) <= self.max_length:
            raise InputError(f"expected 1 to {self.max_length} tokens, got {len(ids)} from {source!r:.60}")
        padded = np.full(self.max_length, self.padding, np.int32)
        padded[: len(ids)] = ids
        return padded, np.arange(self.max_length) < len(ids)


@dataclasses.dataclass(frozen=True)
class Bytes(Text):
    """UTF-8 bytes: 256 values after the 6 special tokens PAD, BOS, EOS, MASK, CLS, SEP.

    max_length: the most bytes. width: channels. scale: standard deviation of the embedding at the start.
    special: read [PAD], [BOS], [EOS], [MASK], [CLS], [SEP] in a text as one special token each, not as the bytes they
        are written with; "[MASK]" in a sentence is then one masked byte.
    enclosed: put CLS before a text and SEP behind it. With `special` this is Hugging Face's PerceiverTokenizer, while
        neither is DeepMind's.
    truncate: cut a text that is too long (before SEP, and where need be within a letter) instead of refusing it.
    ngrams: embeddings of runs of bytes and of words, added to those of the bytes; the published models have none.
    """

    max_length: int
    width: int = 128
    scale: float = 0.02
    special: bool = preprocessing_field(default=False)
    enclosed: bool = preprocessing_field(default=False)
    truncate: bool = preprocessing_field(default=False)
    ngrams: Ngrams | None = None

    def __post_init__(self) -> None:
        if self.max_length < (least := 3 if self.enclosed else 1):
            raise ConfigError(f"Bytes.max_length: expected at least {least}, got {self.max_length}")
        if self.width < 1:
            raise ConfigError(f"Bytes.width: expected at least 1, got {self.width}")

    @property
    def vocabulary(self) -> int:
        """See Text."""
        return BYTE_VOCABULARY

    @property
    def padding(self) -> int:
        """See Text."""
        return PAD

    def encode(self, text: str) -> np.ndarray:
        """See Text. Cut to `max_length` with `truncate`."""
        ids = encode_bytes(text, self.special)
        if self.truncate:
            ids = ids[: self.max_length - 2 * self.enclosed]
        return np.concatenate([[CLS], ids, [SEP]], dtype=np.int32) if self.enclosed else ids

    def decode(self, ids: np.ndarray, keep_special: bool = False) -> str:
        """See Text."""
        return decode_bytes(ids, keep_special)


@dataclasses.dataclass(frozen=True)
class Subwords(Text):
    """Ids of a Hugging Face tokenizer (extra `text`).

    tokenizer: the content of a tokenizer.json, kept in the model folder so that a model carries its own vocabulary.
    max_length, width, scale: as for Bytes.
    """

    max_length: int
    tokenizer: str = preprocessing_field()
    width: int = 128
    scale: float = 0.02

    def __post_init__(self) -> None:
        _tokenizer(self.tokenizer)

    @property
    def vocabulary(self) -> int:
        """See Text."""
        return _tokenizer(self.tokenizer).vocabulary

    @property
    def padding(self) -> int:
        """See Text: the tokenizer's own, else that of a token called [PAD], <pad> or <|endoftext|>, else 0."""
        return _tokenizer(self.tokenizer).padding

    def encode(self, text: str) -> np.ndarray:
        """See Text."""
        return np.asarray(_tokenizer(self.tokenizer).codec.encode(text).ids, np.int32)

    def decode(self, ids: np.ndarray, keep_special: bool = False) -> str:
        """See Text. Padding is left out in any case."""
        shown = [int(i) for i in ids if i != self.padding]
        return _tokenizer(self.tokenizer).codec.decode(shown, skip_special_tokens=not keep_special)


class _Tokenizer(NamedTuple):
    codec: Any
    vocabulary: int
    padding: int


@functools.lru_cache(maxsize=8)
def _tokenizer(content: str) -> _Tokenizer:
    tokenizers = require("tokenizers", "text")
    try:
        codec = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises bare Exception for any malformed content
        raise ConfigError(f"Subwords.tokenizer is not the content of a tokenizer.json: {error}") from None
    found = [codec.token_to_id(name) for name in ("[PAD]", "<pad>", "<|endoftext|>")]
    padding = codec.padding["pad_id"] if codec.padding else next((i for i in found if i is not None), 0)
    codec.no_padding()
    codec.no_truncation()
    highest = max(codec.get_vocab(with_added_tokens=True).values(), default=0)  # ids may have gaps
    return _Tokenizer(codec, highest + 1, padding)


class TextTokens(nnx.Module):
    """See Text. `table` is the embedding, for a head that is tied to it."""

    def __init__(self, config: Text, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        initial = nnx.initializers.truncated_normal(config.scale)
        self.table = nnx.Param(initial(rngs.params(), (config.vocabulary, config.width), jnp.float32))
        self.position = Learned(config.width).build((config.max_length,), rngs)
        self.ngrams = None if config.ngrams is None else config.ngrams.build(config.width, rngs=rngs)

    def __call__(self, raw: Array, mask: Array | None = None) -> Tokens:
        """Ids [b, n] -> Tokens [b, n, width]. Ids outside the vocabulary are the caller's error and are clamped."""
        check_array(raw, ("b", "n"), "iu")
        if raw.shape[1] > self.config.max_length:
            raise InputError(f"expected at most {self.config.max_length} tokens, got {raw.shape[1]}")
        real = jnp.asarray(raw != self.config.padding)
        given = presence(mask, *raw.shape)
        if mask is not None and given is not None:
            real = given if mask.ndim == 2 else real & given
        ids = jnp.clip(jnp.asarray(raw, jnp.int32), 0, self.config.vocabulary - 1)
        places = self.position(grid_at(jnp.arange(raw.shape[1]), (self.config.max_length,)))
        values = self.table[...][ids] + places
        if self.ngrams is not None:
            values = values + self.ngrams(ids)
        # Masked tokens keep their values: ids hold no NaN, and the reference models do the same.
        return Tokens(values.astype(self.dtype), real)


__all__ = [
    "BOS",
    "BYTE_VOCABULARY",
    "CLS",
    "EOS",
    "MASK",
    "PAD",
    "SEP",
    "SPECIAL_NAMES",
    "Bytes",
    "Subwords",
    "Text",
    "TextTokens",
    "decode_bytes",
    "encode_bytes",
    "until_end",
]
