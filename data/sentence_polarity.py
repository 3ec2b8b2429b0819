"""Sentences out of film reviews, half of them praise and half of them complaint.

Origin: https://github.com/nltk/nltk_data (packages/corpora/sentence_polarity.zip; Pang and Lee 2005). Licence: CC BY
4.0. Layout: sentence_polarity/rt-polarity.pos and .neg, a sentence a line. The authors' files are in Latin-1 and
NLTK's copy in UTF-8; a file that is not UTF-8 is read as Latin-1.
Splits: 80 % training, 10 % validation, 10 % test, seeded, the classes in equal shares.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data.root import folder
from data.splits import stratified
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file

ORIGIN = "https://github.com/nltk/nltk_data (packages/corpora/sentence_polarity.zip)"
CLASSES = {"complaint": "rt-polarity.neg", "praise": "rt-polarity.pos"}


@dataclasses.dataclass(frozen=True)
class Sentence:
    """text, in small letters with spaces around punctuation, and the number of its class in CLASSES."""

    text: str
    label: int


def load(root: str | Path | None = None, seed: int = 0) -> dict[str, Sequence[Sentence]]:
    """The splits "train", "validation" and "test". seed: another seed gives another division.

    Raises:
        InputError: the dataset is absent, a file is missing or empty, or a line is blank.
    """
    place = folder("sentence_polarity", root, ORIGIN)
    sentences = [Sentence(text, label) for label, name in enumerate(CLASSES.values()) for text in _read(place / name)]
    numbers = stratified([one.text for one in sentences], [one.label for one in sentences], seed=seed)
    return {name: [sentences[number] for number in part] for name, part in numbers.items()}


def _read(path: Path) -> list[str]:
    with naming(str(path)):
        data = existing_file(path).read_bytes()
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        whole = data.decode("latin-1")
    # Not splitlines: of the Latin-1 characters it takes NEL for the end of a line.
    lines = [line.strip() for line in whole.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(f"{path}, line {number}: expected a sentence, got a blank line")
    return lines
