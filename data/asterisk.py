"""Prompts of a telephone exchange: one voice, Allison Smith's, in English, 8 kHz mono wav, with their texts.

Origin: Asterisk core sounds, https://downloads.asterisk.org/pub/telephony/sounds/, packaged by Debian. Licence:
CC BY-SA 3.0. On Debian or Ubuntu, without installing anything:
    apt-get download asterisk-core-sounds-en-wav asterisk-core-sounds-en      (sounds; texts)
    for package in asterisk-core-sounds-en*.deb; do dpkg -x $package FOLDER/asterisk; done
Layout: asterisk/usr/share/, as the packages hold it: asterisk/sounds/en_US_f_Allison/**/*.wav and
doc/asterisk-core-sounds-en/core-sounds-en.txt.gz with a line "name: text" for each. Where the text is a note such as
"[this is a simple beep tone]", nothing is said, and the sound is left out; so is a text without a sound.
Splits: 80 % training, 10 % validation, 10 % test by a fixed hash of the spelled text, so that what is said in the same
words is in the same split. Sentences still recur as parts of others, as a menu's items do.
"""

import dataclasses
import functools
import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.lazy import Lazy
from data.root import folder
from data.splits import divided
from data.synthetic_digits import WORDS
from perceiver.errors import InputError, naming
from perceiver.io import read_audio
from perceiver.io.files import existing_file, refusing

ORIGIN = "Debian's packages asterisk-core-sounds-en-wav and asterisk-core-sounds-en, unpacked by dpkg -x"
SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
NOTES = re.compile(r"\[.*?\]|\(.*?\)|<.*?>")
"""What is said of a sound, not in it."""
SAID = {"*": " star ", "#": " pound ", "&": " and "} | {str(digit): f" {word} " for digit, word in enumerate(WORDS)}
"""How signs are read. Longer numbers are read digit by digit, which is not always what the voice does."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt: its name, its text, as written and spelled, and the waveform, float32 [n] at `rate` Hz."""

    file: str
    text: str
    spelled: str
    wave: np.ndarray
    rate: int


def load(root: str | Path | None = None, sample_rate: int = 8000) -> dict[str, Sequence[Prompt]]:
    """The splits "train", "validation" and "test". A file is read when its item is asked for.

    Raises:
        InputError: the dataset is absent, a line of the texts says no name, or none of the names has a file.
            A damaged file: when its item is asked for.
    """
    place = folder("asterisk", root, ORIGIN)
    rows = [(name, text, spelled(text)) for name, text in _texts(place / TEXTS)]
    rows = [row for row in rows if row[2] and (place / SOUNDS / f"{row[0]}.wav").is_file()]
    if not rows:
        raise InputError(f"{place / SOUNDS}: expected a file NAME.wav for the names in {place / TEXTS}, got none")
    parts = divided([spelling for _, _, spelling in rows])
    make = functools.partial(_prompt, place / SOUNDS, sample_rate)
    return {split: Lazy([rows[number] for number in numbers], make) for split, numbers in parts.items()}


def spelled(text: str) -> str:
    """A text in small letters, apostrophes and single spaces; empty where it is but a note."""
    plain = NOTES.sub(" ", text.lower())
    plain = "".join(SAID.get(letter, letter if letter.isalpha() or letter == "'" else " ") for letter in plain)
    return " ".join(plain.split())


def _texts(path: Path) -> list[tuple[str, str]]:
    with naming(str(path)):
        file = existing_file(path)
        with refusing("gzipped text in UTF-8"):
            lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(";"):
            continue
        name, colon, text = line.partition(":")
        if not colon or not name.strip() or ".." in name.split("/") or name.startswith("/"):
            raise InputError(f"{path}, line {number}: expected NAME: TEXT, got {line!r:.80}")
        found.append((name.strip(), text.strip()))
    return found


def _prompt(place: Path, sample_rate: int, row: tuple[str, str, str]) -> Prompt:
    name, text, spelling = row
    wave, rate = read_audio(place / f"{name}.wav", sample_rate=sample_rate)
    return Prompt(f"{name}.wav", text, spelling, wave, rate)
