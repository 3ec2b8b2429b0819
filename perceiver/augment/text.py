"""Text as byte ids, integers [n]: hidden in part, to be found again (BERT, arXiv 1810.04805)."""

from typing import NamedTuple

import numpy as np

WHITESPACE = b" \t\n\r\v\f"


class Masked(NamedTuple):
    """ids: [n], what the model sees. targets: [n], what there was. chosen: bool [n], what is asked for."""

    ids: np.ndarray
    targets: np.ndarray
    chosen: np.ndarray


def mask_bytes(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    mask: int,
    low: int,
    high: int,
    share: float = 0.15,
    padding: int | None = None,
) -> Masked:
    """Choose single bytes; of those 80 % become `mask`, 10 % a random byte, and 10 % stay as they are.

    ids: integers [n]. low, high: range of the ids of bytes, without `high`; nothing outside it is chosen, which leaves
    special tokens and padding alone, nor is `padding`, should it lie inside. share: of the bytes, rounded, but one at
    least unless it is 0.
    """
    open_to = np.flatnonzero(_bytes(ids, low, high, mask, padding))
    picked = rng.choice(open_to, _count(len(open_to), share), replace=False)
    corrupted, chosen = ids.copy(), np.zeros(len(ids), bool)
    chosen[picked] = True
    luck = rng.random(len(picked))
    corrupted[picked[luck < 0.8]] = mask
    other = picked[(luck >= 0.8) & (luck < 0.9)]
    corrupted[other] = rng.integers(low, high, len(other))
    return Masked(corrupted, ids.copy(), chosen)


def mask_words(
    ids: np.ndarray,
    rng: np.random.Generator,
    *,
    mask: int,
    low: int,
    high: int,
    share: float = 0.15,
    padding: int | None = None,
) -> Masked:
    """Choose whole words, the runs of bytes between whitespace; of those 80 % become masks, 10 % random, 10 % stay.

    A word shares one fate, since single bytes left in it would give it away. Its length stays known.
    ids, share, padding: as for `mask_bytes`, `share` counting words. low: also the id of byte 0, by which whitespace
    (ASCII) is known.
    """
    white = np.isin(ids, low + np.frombuffer(WHITESPACE, np.uint8).astype(np.int64))
    inside = _bytes(ids, low, high, mask, padding) & ~white
    starts = inside & ~np.concatenate([[False], inside[:-1]])
    word = np.where(inside, np.cumsum(starts), 0)  # from 1 on; 0 is no word
    words = int(starts.sum())
    fate = np.ones(words + 1)  # 1 is not chosen
    picked = 1 + rng.choice(words, _count(words, share), replace=False)
    fate[picked] = rng.random(len(picked))
    own = fate[word]
    corrupted = np.where(own < 0.8, ids.dtype.type(mask), ids)
    other = (own >= 0.8) & (own < 0.9)
    corrupted[other] = rng.integers(low, high, int(other.sum()))
    return Masked(corrupted, ids.copy(), own < 1.0)


def _bytes(ids: np.ndarray, low: int, high: int, mask: int, padding: int | None) -> np.ndarray:
    """Which ids are bytes that may be chosen, bool [n]."""
    found = (ids >= low) & (ids < high) & (ids != mask)
    return found if padding is None else found & (ids != padding)


def _count(there: int, share: float) -> int:
    return min(max(round(there * share), 1), there) if share > 0 else 0
