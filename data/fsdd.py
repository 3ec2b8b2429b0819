"""Free Spoken Digit Dataset: "zero" to "nine" spoken into microphones, 8 kHz mono wav.

Origin: https://github.com/Jakobovski/free-spoken-digit-dataset (recordings/). Licence: CC BY-SA 4.0.
Layout: fsdd/recordings/{digit}_{speaker}_{index}.wav. Official split: index 0-4 is the test, the rest training; here
every training recording with index 5-9 is kept for validation.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.root import folder
from perceiver.errors import InputError
from perceiver.io import read_audio

ORIGIN = "https://github.com/Jakobovski/free-spoken-digit-dataset"
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<index>\d+)\.wav")


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file: its digit 0-9, who spoke, which take, and the waveform, float32 [n] at `rate` Hz."""

    path: Path
    digit: int
    speaker: str
    index: int
    wave: np.ndarray
    rate: int


def load(root: str | Path | None = None, sample_rate: int = 8000) -> dict[str, Sequence[Recording]]:
    """The splits "train", "validation" and "test".

    Raises:
        InputError: the dataset is absent, a file is damaged, or its name says no digit, speaker and index.
    """
    place = folder("fsdd", root, ORIGIN) / "recordings"
    splits: dict[str, list[Recording]] = {"train": [], "validation": [], "test": []}
    for path in sorted(place.glob("*.wav")):
        found = NAME.fullmatch(path.name)
        if found is None:
            raise InputError(f"{path}: expected a name such as 7_jackson_32.wav")
        wave, rate = read_audio(path, sample_rate=sample_rate)
        index = int(found["index"])
        recording = Recording(path, int(found["digit"]), found["speaker"], index, wave, rate)
        splits["test" if index < 5 else "validation" if index < 10 else "train"].append(recording)
    empty = [name for name, split in splits.items() if not split]
    if empty:
        raise InputError(f"{place}: expected recordings of every split, {empty[0]} has none")
    return splits
