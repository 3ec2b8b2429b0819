"""BANKING77: questions to a bank, each with one of 77 intents.

Origin: https://github.com/PolyAI-LDN/task-specific-datasets (banking_data/; Casanueva et al. 2020,
arXiv 2003.04807). Licence: CC BY 4.0. Layout: banking77/train.csv, test.csv, categories.json.
Every tenth training row is kept for validation.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

from data.root import folder
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing

ORIGIN = "https://github.com/PolyAI-LDN/task-specific-datasets (banking_data)"


@dataclasses.dataclass(frozen=True)
class Question:
    """text, and the number of its intent in `categories`."""

    text: str
    intent: int


def categories(root: str | Path | None = None) -> tuple[str, ...]:
    """Names of the intents, in the order of their numbers.

    Raises:
        InputError: the dataset is absent, or the file is not a list of names.
    """
    path = folder("banking77", root, ORIGIN) / "categories.json"
    with naming(str(path)), refusing("a JSON list of names"):
        names = json.loads(existing_file(path).read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"expected a JSON list of names, got {names!r:.80}")
    return tuple(names)


def load(root: str | Path | None = None) -> dict[str, Sequence[Question]]:
    """The splits "train", "validation" and "test".

    Raises:
        InputError: the dataset is absent, a file is missing or no table, or a row is not a text with a known intent.
    """
    numbers = {name: number for number, name in enumerate(categories(root))}
    place = folder("banking77", root, ORIGIN)
    rows = _read(place / "train.csv", numbers)
    return {
        "train": [row for i, row in enumerate(rows) if i % 10],
        "validation": rows[::10],
        "test": _read(place / "test.csv", numbers),
    }


def _read(path: Path, numbers: dict[str, int]) -> list[Question]:
    with naming(str(path)), refusing("a table in UTF-8"):
        rows = list(csv.DictReader(io.StringIO(existing_file(path).read_text(encoding="utf-8"), newline="")))
    for line, row in enumerate(rows, 2):
        if not row.get("text") or row.get("category") not in numbers:
            raise InputError(f"{path}, line {line}: expected a text and a known category, got {row!r:.120}")
    return [Question(row["text"], numbers[row["category"]]) for row in rows]
