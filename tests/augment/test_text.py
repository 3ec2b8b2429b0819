import itertools

import numpy as np
import pytest

from perceiver.adapters.text import BYTE_VOCABULARY, CLS, MASK, PAD, SEP, SPECIALS, encode_bytes
from perceiver.augment import mask_bytes, mask_words

RANGE = {"mask": MASK, "low": SPECIALS, "high": BYTE_VOCABULARY}
TEXT = "Nine  tailors make\ta man, and many words make a long enough text to count in.\n"


def rng(seed=0):
    return np.random.default_rng(seed)


def padded(text=TEXT, length=120):
    ids = np.concatenate([[CLS], encode_bytes(text), [SEP]]).astype(np.int32)
    return np.pad(ids, (0, length - len(ids)), constant_values=PAD)


@pytest.mark.parametrize("hide", [mask_bytes, mask_words])
def test_only_bytes_are_chosen_and_only_chosen_ones_change(hide):
    ids = padded()
    ids.flags.writeable = False
    for seed in range(40):
        corrupted, targets, chosen = hide(ids, rng(seed), share=0.3, **RANGE)
        assert np.array_equal(targets, ids)
        assert np.array_equal(corrupted[~chosen], ids[~chosen])
        assert (ids[chosen] >= SPECIALS).all()
        assert ((corrupted == MASK) | (corrupted >= SPECIALS))[chosen].all()
        assert (corrupted.dtype, chosen.dtype, corrupted.shape) == (np.int32, np.bool_, ids.shape)
        again = hide(ids, rng(seed), share=0.3, **RANGE)
        assert all(np.array_equal(a, b) for a, b in zip(again, (corrupted, targets, chosen), strict=True))


@pytest.mark.parametrize("hide", [mask_bytes, mask_words])
def test_80_percent_are_masked_10_random_and_10_stay(hide):
    ids = padded("a " * 5000, 10010)
    corrupted, _, chosen = hide(ids, rng(1), share=0.5, **RANGE)
    masked, kept = (corrupted == MASK)[chosen].mean(), (corrupted == ids)[chosen].mean()
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)
    assert len(np.unique(corrupted[chosen])) > 50
    there = 10000 if hide is mask_bytes else 5000
    assert chosen.sum() == there / 2


@pytest.mark.parametrize("hide", [mask_bytes, mask_words])
def test_how_much_is_chosen(hide):
    ids = padded()
    assert not hide(ids, rng(), share=0.0, **RANGE).chosen.any()
    assert np.array_equal(hide(ids, rng(), share=0.0, **RANGE).ids, ids)
    assert hide(ids, rng(), share=1e-9, **RANGE).chosen.any()
    assert not hide(np.zeros(5, np.int32), rng(), **RANGE).chosen.any()
    assert len(hide(np.zeros(0, np.int32), rng(), **RANGE).ids) == 0


def test_bytes_up_to_padding_inside_of_the_range():
    ids = np.array([0, 1, 2, 0, 0], np.int64)
    chosen = mask_bytes(ids, rng(), mask=256, low=0, high=256, share=1.0, padding=0).chosen
    assert chosen.tolist() == [False, True, True, False, False]


def test_words_are_hidden_whole_and_whitespace_is_not():
    ids = padded()
    blank = np.isin(ids, encode_bytes(" \t\n"))
    ends = np.flatnonzero(blank | (ids < SPECIALS))
    words = [slice(a + 1, b) for a, b in itertools.pairwise(ends) if b > a + 1]
    fates = set()
    for seed in range(60):
        corrupted, _, chosen = mask_words(ids, rng(seed), share=0.3, **RANGE)
        assert not chosen[blank].any()
        picked = [word for word in words if chosen[word].any()]
        assert all(chosen[word].all() for word in picked)
        assert len(picked) == round(0.3 * len(words))
        for word in picked:
            masked = corrupted[word] == MASK
            assert masked.all() or not masked.any()
            fates.add("masked" if masked.all() else "kept" if np.array_equal(corrupted[word], ids[word]) else "random")
    assert fates == {"masked", "kept", "random"}
