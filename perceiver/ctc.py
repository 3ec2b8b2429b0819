"""Connectionist temporal classification on the host: log-probabilities of letters over time to letters, and back.

Graves et al., "Connectionist temporal classification" (ICML 2006). Arrays are float [t, v]: of every step, the
log-probability of the blank (id 0) and of each letter (ids from 1 on). Numpy alone.
"""

import dataclasses
import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np

from perceiver.errors import ConfigError, InputError
from perceiver.typing import Float, Int

BLANK = 0
"""The id of "no letter here". Padding behind a text has it too."""
NEVER = -1e30
"""A log-probability of nothing, which can still be added to."""
UNLIKELY = np.log(1e-4)
"""Letters below this probability at a step are not tried by the beam search."""

Scorer = Callable[[Sequence[tuple[int, ...]]], Float[np.ndarray, "n v"]]
"""Texts, as ids, to the log-probability of each letter coming next; and, in the column of the blank, of the text's end,
or zeros there from what knows no ends."""


def steps_needed(ids: Sequence[int] | Int[np.ndarray, "n"]) -> int:
    """The fewest steps that a text fits into: one a letter, and a blank between two that are the same."""
    row = np.asarray(ids)
    return len(row) + int((row[1:] == row[:-1]).sum())


def greedy(log_probs: Float[np.ndarray, "t v"]) -> tuple[int, ...]:
    """The text of the likeliest alignment: the best id of each step, repeats and blanks taken out."""
    best = log_probs.argmax(axis=1)
    changed = np.append(True, best[1:] != best[:-1]) if len(best) else np.zeros(0, bool)
    return tuple(int(letter) for letter in best[changed & (best != BLANK)])


@dataclasses.dataclass(frozen=True)
class Beam:
    """How widely is searched for the likeliest text, all of its alignments together.

    width: texts that are kept at each step. scorer: a language model, whose log-probability is added `weight` times
    (shallow fusion), and `bonus` for each letter, as every letter makes a text less probable.
    """

    width: int = 16
    scorer: Scorer | None = None
    weight: float = 0.5
    bonus: float = 0.5

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"Beam.width: expected at least 1, got {self.width}")


@dataclasses.dataclass(slots=True)
class _Text:
    """Log-probabilities of a text that is searched: of alignments that end in a blank, and of those in a letter."""

    blank: float = NEVER
    letter: float = NEVER

    @property
    def total(self) -> float:
        return _either(self.blank, self.letter)


def _either(a: float, b: float) -> float:
    """The logarithm of the sum; numpy's takes ten times as long for single numbers."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))


def beam_search(log_probs: Float[np.ndarray, "t v"], beam: Beam) -> tuple[int, ...]:
    """The likeliest text by a search over prefixes (Hannun et al., arXiv 1408.2873)."""
    fused = _Fusion(beam)
    texts: dict[tuple[int, ...], _Text] = {(): _Text(blank=0.0)}
    for row in np.asarray(log_probs, np.float64):
        texts = _step(texts, row, fused)
    fused.look(texts)
    return max(texts, key=lambda text: texts[text].total + fused.of(text) + fused.ending(text))


def _step(texts: dict[tuple[int, ...], _Text], row: np.ndarray, fused: "_Fusion") -> dict[tuple[int, ...], _Text]:
    """All texts one step later, and the best of them."""
    likely = [int(letter) for letter in np.flatnonzero(row >= min(UNLIKELY, row.max())) if letter != BLANK]
    scores = row.tolist()
    if likely:
        fused.look(texts)
    later: dict[tuple[int, ...], _Text] = {}
    for text, before in texts.items():
        total, last = before.total, text[-1] if text else BLANK
        same = later.setdefault(text, _Text())
        same.blank = _either(same.blank, total + scores[BLANK])
        if text:
            same.letter = _either(same.letter, before.letter + scores[last])
        for letter in likely:
            # The same letter again is another one only behind a blank.
            longer = later.setdefault((*text, letter), _Text())
            longer.letter = _either(longer.letter, (before.blank if letter == last else total) + scores[letter])
    score = {text: found.total + fused.of(text) for text, found in later.items()}
    return {text: later[text] for text in heapq.nlargest(fused.beam.width, score, key=score.__getitem__)}


class _Fusion:
    """What the language model adds to each text; it is asked about each once."""

    def __init__(self, beam: Beam):
        self.beam = beam
        self._next: dict[tuple[int, ...], np.ndarray] = {}
        self._of: dict[tuple[int, ...], float] = {(): 0.0}

    def look(self, texts: Sequence[tuple[int, ...]] | dict[tuple[int, ...], _Text]) -> None:
        """Ask about what may follow these texts."""
        new = [text for text in texts if text not in self._next]
        if self.beam.scorer is None or not new:
            return
        self._next |= dict(zip(new, np.asarray(self.beam.scorer(new), np.float64), strict=True))

    def of(self, text: tuple[int, ...]) -> float:
        """What is added to a text, all of whose letters but the last were asked about."""
        if text not in self._of:
            known = self._next.get(text[:-1])
            own = self.beam.bonus + self.beam.weight * float(known[text[-1]]) if known is not None else 0.0
            self._of[text] = self.of(text[:-1]) + own
        return self._of[text]

    def ending(self, text: tuple[int, ...]) -> float:
        """What is added to a text that ends there."""
        known = self._next.get(text)
        return 0.0 if known is None else self.beam.weight * float(known[BLANK])


def align(log_probs: Float[np.ndarray, "t v"], ids: Sequence[int]) -> Int[np.ndarray, "n 2"]:
    """When each letter of a text is said: its first and its last step on the likeliest path (Viterbi).

    Raises:
        InputError: the text needs more steps than there are.
    """
    count, needed = len(log_probs), steps_needed(ids)
    if needed > count:
        raise InputError(f"a text of {len(ids)} letters needs at least {needed} steps of time, the sound has {count}")
    if not len(ids):
        return np.zeros((0, 2), int)
    states = np.full(2 * len(ids) + 1, BLANK)
    states[1::2] = ids
    skips = np.zeros(len(states), bool)  # over the blank between two letters that differ
    skips[3::2] = states[3::2] != states[1:-2:2]
    path = _best_path(np.asarray(log_probs, np.float64)[:, states], skips)
    spans = np.empty((len(ids), 2), int)
    for number in range(len(ids)):
        spans[number] = np.flatnonzero(path == 2 * number + 1)[[0, -1]]
    return spans


def _best_path(scores: Float[np.ndarray, "t s"], skips: np.ndarray) -> Int[np.ndarray, "t"]:
    """The state of each step, from the first two states to the last two, each time by 0, 1 or, where it may, 2."""
    count, width = scores.shape
    best = np.full(width, NEVER)
    best[:2] = scores[0, :2]
    back = np.zeros((count, width), int)
    for step in range(1, count):
        one, two = np.roll(best, 1), np.where(skips, np.roll(best, 2), NEVER)
        one[0] = NEVER
        choices = np.stack([best, one, two])
        back[step] = choices.argmax(axis=0)
        best = choices.max(axis=0) + scores[step]
    path = np.empty(count, int)
    path[-1] = width - 1 if best[-1] >= best[-2] else width - 2
    for step in range(count - 1, 0, -1):
        path[step - 1] = path[step] - back[step, path[step]]
    return path
