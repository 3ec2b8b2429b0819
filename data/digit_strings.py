"""Digits said one after the other: recordings of `fsdd` by one speaker in a row, with pauses between them.

Origin, licence and layout: see `fsdd`. Splits: those of `fsdd`, so that no recording is in two of them, and with a
speaker held out, nobody who is heard in the test is known. Each split's strings are drawn by a fixed seed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import fsdd
from data.synthetic_digits import WORDS
from perceiver.io import trim_silence
from perceiver.io.audio import mean_power

RATE, GAP, MOST = 8000, 0.2, 5
"""Hz; seconds of a pause at most; digits of a string at most."""
LOUDNESS, TRIM = 0.1, 45.0
"""Of each recording: root mean square; and decibels below the loudest part at which its ends are cut off."""
ROUNDS = 5
"""How often each recording is in a string of its split."""


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """A sound, float32 [n] at RATE, and the words in it. name: its speaker and number."""

    name: str
    wave: np.ndarray
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """One speaker's recordings: digits, and sounds float32 [n] at RATE without silence at their ends."""

    name: str
    digits: tuple[int, ...]
    waves: tuple[np.ndarray, ...]


def load(root: str | Path | None = None, held_out: str | None = None) -> dict[str, Sequence[Said]]:
    """The splits "train", "validation" and "test". Every recording is read.

    Raises:
        InputError: see `fsdd.load`.
    """
    parts = fsdd.load(root, RATE, held_out)
    return {name: strings(voices(part, lambda item: item.speaker)) for name, part in parts.items()}


def voices(items: Sequence[Any], who: Callable[[Any], str]) -> list[Voice]:
    """Recordings, or words of `synthetic_digits`, by who says them, in alphabetical order."""
    by_name: dict[str, list[tuple[int, np.ndarray]]] = {}
    for i in range(len(items)):
        wave = trim_silence(items[i].wave, RATE, decibels=TRIM)
        wave = wave * np.float32(LOUDNESS / max(np.sqrt(mean_power(wave)), 1e-6))
        by_name.setdefault(who(items[i]), []).append((items[i].digit, wave))
    return [Voice(name, *(tuple(part) for part in zip(*said, strict=True))) for name, said in sorted(by_name.items())]


def strings(speakers: Sequence[Voice], rounds: int = ROUNDS, seed: int = 0) -> list[Said]:
    """Each recording `rounds` times, in strings of 1 to MOST by its speaker."""
    rng = np.random.default_rng(seed)
    found = []
    for voice in speakers:
        for _ in range(rounds):
            order = rng.permutation(len(voice.waves))
            while len(order):
                count = int(rng.integers(1, MOST + 1))
                wave, text = said(voice, order[:count], rng)
                found.append(Said(f"{voice.name}_{len(found)}", wave, text))
                order = order[count:]
    return found


def said(
    voice: Voice, chosen: Sequence[int] | np.ndarray, rng: np.random.Generator, most: int | None = None
) -> tuple[np.ndarray, str]:
    """Recordings of a voice in a row, with pauses of random length around them; as many as fit into `most` samples."""
    parts, words = [_pause(rng)], []
    for number in chosen:
        wave, pause = voice.waves[number], _pause(rng)
        if most is not None and words and sum(map(len, parts)) + len(wave) + len(pause) > most:
            break
        parts += [wave, pause]
        words.append(WORDS[voice.digits[number]])
    return np.concatenate(parts)[:most], " ".join(words)


def _pause(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(int(rng.integers(0, int(GAP * RATE))), np.float32)
