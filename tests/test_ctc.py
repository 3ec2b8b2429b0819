import itertools

import numpy as np
import optax
import pytest

from perceiver.ctc import BLANK, Beam, align, beam_search, greedy, steps_needed
from perceiver.errors import ConfigError, InputError


def log_probs(seed, steps=5, letters=3, sharpness=2.0):
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(steps, letters + 1))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def collapsed(path):
    return tuple(letter for i, letter in enumerate(path) if letter != BLANK and (i == 0 or path[i - 1] != letter))


def by_text(logs):
    """The log-probability of every text, by going through all paths."""
    found = {}
    for path in itertools.product(range(logs.shape[1]), repeat=len(logs)):
        text, score = collapsed(path), sum(row[letter] for row, letter in zip(logs, path, strict=True))
        found[text] = np.logaddexp(found.get(text, -np.inf), score)
    return found


def drawn(path, letters=3, sure=0.98):
    """Log-probabilities that follow a path."""
    shares = np.full((len(path), letters + 1), (1 - sure) / letters)
    shares[np.arange(len(path)), path] = sure
    return np.log(shares)


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_search_finds_the_likeliest_of_all_texts(seed):
    logs = log_probs(seed)
    texts = by_text(logs)
    assert beam_search(logs, Beam(width=500)) == max(texts, key=texts.get)


def test_the_search_adds_up_alignments_where_greedy_takes_one():
    # "a" has the likelier alignments together, nothing the likeliest single one
    logs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert greedy(logs) == ()
    assert beam_search(logs, Beam(width=4)) == (1,)


def test_repeats_are_one_letter_unless_a_blank_parts_them():
    assert greedy(drawn([0, 1, 1, 0, 1, 2, 2, 0])) == (1, 1, 2)
    assert beam_search(drawn([0, 1, 1, 0, 1, 2, 2, 0]), Beam()) == (1, 1, 2)
    assert greedy(drawn([0, 0])) == greedy(np.zeros((0, 4))) == ()
    assert beam_search(np.zeros((0, 4)), Beam()) == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_language_model_is_added_with_its_weight_and_the_bonus_for_each_letter(seed):
    logs = log_probs(seed)
    table = np.log(np.random.default_rng(9).dirichlet(np.ones(4), size=4))
    beam = Beam(width=500, scorer=lambda texts: np.stack([table[t[-1] if t else 0] for t in texts]), weight=0.7)

    def fused(text):
        own = sum(table[before, letter] for before, letter in zip((0, *text), (*text, BLANK), strict=True))
        return texts[text] + 0.7 * own + 0.5 * len(text)

    texts = by_text(logs)
    assert beam_search(logs, beam) == max(texts, key=fused)


def test_the_language_model_is_asked_about_each_text_once():
    asked = []

    def scorer(texts):
        asked.extend(texts)
        return np.zeros((len(texts), 4))

    beam_search(log_probs(0, steps=12), Beam(width=4, scorer=scorer))
    assert len(asked) == len(set(asked)) > 4


@pytest.mark.parametrize("seed", range(6))
def test_an_alignment_is_the_likeliest_path_that_says_the_text(seed):
    logs, text = log_probs(seed, steps=6), (1, 1, 3)
    paths = [path for path in itertools.product(range(4), repeat=6) if collapsed(path) == text]
    best = max(paths, key=lambda path: sum(row[letter] for row, letter in zip(logs, path, strict=True)))
    spans, place = [], 0
    for letter, run in itertools.groupby(best):
        count = len(list(run))
        spans += [(place, place + count - 1)] if letter != BLANK else []
        place += count
    np.testing.assert_array_equal(align(logs, text), spans)


def test_a_text_needs_a_step_a_letter_and_one_between_two_that_are_the_same():
    assert [steps_needed(ids) for ids in ([], [1], [1, 2, 1], [1, 1, 2, 2])] == [0, 1, 3, 6]
    logs = log_probs(0, steps=5)
    assert len(align(logs, (1, 2, 2, 1))) == 4
    with pytest.raises(InputError, match="a text of 4 letters needs at least 6 steps of time, the sound has 5"):
        align(logs, (1, 1, 2, 2))
    assert align(logs, ()).shape == (0, 2)


def test_the_loss_is_that_of_all_alignments_together():
    logs = log_probs(3)
    texts = by_text(logs)
    for text in ((1,), (2, 2), (1, 3, 2)):
        labels = np.array([[*text, *[BLANK] * (4 - len(text))]])
        loss = optax.ctc_loss(logs[None], np.zeros((1, 5)), labels, labels == BLANK, blank_id=BLANK)
        assert float(loss[0]) == pytest.approx(-texts[text], rel=1e-4)


def test_a_search_keeps_at_least_one_text():
    with pytest.raises(ConfigError, match=r"Beam\.width: expected at least 1, got 0"):
        Beam(width=0)
