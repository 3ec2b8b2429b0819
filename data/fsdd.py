"""Free Spoken Digit Dataset: "zero" to "nine" spoken into microphones, 8 kHz mono wav.

Origin: https://github.com/Jakobovski/free-spoken-digit-dataset (recordings/). Licence: CC BY-SA 4.0.
Layout: fsdd/recordings/{digit}_{speaker}_{index}.wav, or prepared by `python -m data.prepare fsdd`.
Splits: as published, index 0-4 is the test and the rest training; here index 5-9 is kept for validation. With a speaker
held out, all recordings of that speaker are the test; of the others, index 5-9 is validation and the rest, 0-4
included, training.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import prepared
from data.records import Layout, Record, Records, Rows
from data.root import files
from perceiver.errors import InputError, naming, require
from perceiver.io import read_audio

NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<index>[0-9]{1,9})\.wav")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One file, by its name: its digit 0-9, who spoke, which take, and the waveform, float32 [n] at `rate` Hz."""

    file: str
    digit: int
    speaker: str
    index: int
    wave: np.ndarray
    rate: int


def load(
    root: str | Path | None = None, sample_rate: int = 8000, held_out: str | None = None
) -> dict[str, Sequence[Recording]]:
    """The splits "train", "validation" and "test". A file is read when its item is asked for.

    Args:
        root: see `data.root`.
        sample_rate: Hz of the waveforms.
        held_out: a speaker whose recordings are the test; None for the published split.

    Raises:
        InputError: the dataset is absent, a name says no digit, speaker and index, or nobody is called like that.
            A damaged file: when its item is asked for.
    """
    if sample_rate < 1:
        raise InputError(f"sample_rate: expected at least 1 Hz, got {sample_rate}")
    parts = prepared.records(LAYOUT, root)
    places = {name: [(part, i) for i in range(len(part))] for name, part in parts.items()}
    if held_out is not None:
        places = _without(held_out, parts)
    make = functools.partial(_recording, sample_rate=sample_rate)
    return {name: prepared.items(some, make) for name, some in places.items()}


def speakers(root: str | Path | None = None) -> tuple[str, ...]:
    """Everybody who speaks, in alphabetical order. Of a prepared dataset, every record is read for that.

    Raises:
        InputError: see `load`.
    """
    return _speakers(prepared.records(LAYOUT, root))


def _speakers(parts: dict[str, Records]) -> tuple[str, ...]:
    return tuple(sorted({who for part in parts.values() for who in part.column("speaker")}))


def _without(speaker: str, parts: dict[str, Records]) -> dict[str, list[tuple[Records, int]]]:
    """Where the recordings of each split are when a speaker is the test."""
    places: dict[str, list[tuple[Records, int]]] = {name: [] for name in parts}
    for published, part in parts.items():
        for i, who in enumerate(part.column("speaker")):
            others = "validation" if published == "validation" else "train"
            places["test" if who == speaker else others].append((part, i))
    if not places["test"]:
        raise InputError(f"held_out: expected one of the speakers {', '.join(_speakers(parts))}, got {speaker!r}")
    return places


def _rows(place: Path) -> dict[str, Rows]:
    rows: dict[str, list[Record]] = {name: [] for name in prepared.SPLITS}
    for path in files(place, "recordings/*.wav"):
        found = NAME.fullmatch(path.name)
        if found is None:
            raise InputError(f"{path}: expected a name such as 7_jackson_32.wav")
        index = int(found["index"])
        row = {"file": path.name, "digit": int(found["digit"]), "speaker": found["speaker"], "index": index}
        rows["test" if index < 5 else "validation" if index < 10 else "train"].append(row)
    whole = functools.partial(_with_wave, place / "recordings")
    return {name: Rows(str(place), some, whole) for name, some in rows.items()}


def _with_wave(place: Path, row: Record) -> Record:
    wave, rate = read_audio(place / row["file"])
    return {**row, "wave": wave, "rate": rate}


def _recording(record: Record, sample_rate: int = 8000) -> Recording:
    wave, rate = np.array(record["wave"]), int(record["rate"])  # a copy: bytes in a record are read-only
    if rate != sample_rate:
        wave = require("soxr", "audio").resample(wave, rate, sample_rate).astype(np.float32, copy=False)
        with naming(record["file"]):
            if not len(wave):
                raise InputError(f"expected at least one sample at {sample_rate} Hz, got none")
    return Recording(record["file"], int(record["digit"]), record["speaker"], int(record["index"]), wave, sample_rate)


def _features(tfds: Any) -> dict[str, Any]:
    return {
        "file": tfds.features.Text(),
        "digit": tfds.features.Scalar(np.int64),
        "speaker": tfds.features.Text(),
        "index": tfds.features.Scalar(np.int64),
        "wave": tfds.features.Tensor(shape=(None,), dtype=np.float32, encoding="bytes"),
        "rate": tfds.features.Scalar(np.int64),
    }


LAYOUT = Layout(
    "fsdd", "https://github.com/Jakobovski/free-spoken-digit-dataset", "CC BY-SA 4.0", _features, _rows, _recording
)
