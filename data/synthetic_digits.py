"""Spoken digits from a speech synthesiser: as many voices as wanted, to learn from beside real ones.

Origin: eSpeak NG, https://github.com/espeak-ng/espeak-ng, from the wheel `espeakng-loader` (extra `speech`). Licence:
the synthesiser GPL-3.0; nothing of it is copied here, and its words are made on this machine when they are asked for.
Splits: every tenth voice is validation, the rest training; there is no test, since a score on it says nothing about
people.
"""

import ctypes
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceiver.errors import InputError, require

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
UNLIKE = ("Demonic", "UniRobot", "anikaRobot", "whisper", "whisperf", "fast", "Tweaky", "croak")
"""Voices that no person has; those called robosoft are left out too."""
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
"""Parameters, by their numbers in speak_lib.h."""


@dataclasses.dataclass(frozen=True, eq=False)
class Saying:
    """A word: its digit, the voice's name, and the waveform, float32 [n] at `rate` Hz."""

    digit: int
    voice: str
    wave: np.ndarray
    rate: int


def load(count: int = 2000, seed: int = 0, sample_rate: int = 8000) -> dict[str, Sequence[Saying]]:
    """The splits "train", "validation" and "test" (empty), `count` words in all.

    Every word has a voice, an accent, a speed and a pitch drawn at random; the same seed gives the same words.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
        InputError: the synthesiser cannot start, or knows no voice of a name that it lists.
    """
    synthesiser = _synthesiser()
    rng = np.random.default_rng(seed)
    splits: dict[str, list[Saying]] = {"train": [], "validation": [], "test": []}
    for number in range(count):
        digit, place = number % len(WORDS), int(rng.integers(len(synthesiser.voices)))
        accent, voice = ACCENTS[rng.integers(len(ACCENTS))], synthesiser.voices[place]
        manner = {RATE: rng.integers(100, 260), PITCH: rng.integers(20, 85), RANGE: rng.integers(20, 90)}
        wave = synthesiser.say(WORDS[digit], f"{accent}+{voice}", {k: int(v) for k, v in manner.items()}, sample_rate)
        splits["train" if place % 10 else "validation"].append(Saying(digit, voice, wave, sample_rate))
    return splits


@functools.cache
def _synthesiser() -> "Synthesiser":
    return Synthesiser()


class Synthesiser:
    """eSpeak NG in this process, through its C interface (speak_lib.h)."""

    def __init__(self) -> None:
        loader = require("espeakng_loader", "speech")
        data = Path(loader.get_data_path())
        self._library = ctypes.CDLL(loader.get_library_path())
        self.rate = self._library.espeak_Initialize(1, 0, str(data.parent).encode(), 0)  # 1: samples to the callback
        if self.rate <= 0:
            raise InputError(f"{data}: eSpeak NG could not start")
        kept = sorted(path.name for path in (data / "voices" / "!v").iterdir())
        self.voices = tuple(name for name in kept if name not in UNLIKE and not name.startswith("robosoft"))
        number, pointer = ctypes.c_uint, ctypes.c_void_p
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, number, ctypes.c_int, number, number, pointer, pointer
        ]  # fmt: skip
        self._heard: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._hear)  # kept, or it would be collected while C still calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def _hear(self, samples, count: int, _: int) -> int:
        if samples and count:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, manner: dict[int, int], sample_rate: int) -> np.ndarray:
        """A text as float32 [n] at `sample_rate` Hz."""
        soxr = require("soxr", "audio")
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise InputError(f"eSpeak NG knows no voice {voice!r}")
        for parameter, value in manner.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._heard = []
        words = text.encode()
        self._library.espeak_Synth(words, len(words) + 1, 0, 0, 0, 1, None, None)
        self._library.espeak_Synchronize()
        if not self._heard:
            raise InputError(f"eSpeak NG said nothing as {voice!r}")
        wave = np.concatenate(self._heard).astype(np.float32) / 32768
        return soxr.resample(wave, self.rate, sample_rate).astype(np.float32)
