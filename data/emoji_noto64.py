"""Emoji in Google's Noto style, 64 x 64 pixels, with their names and keywords.

Origin: npm emoji-datasource-google@16.0.0 (img/google/64 and emoji.json, https://github.com/iamcal/emoji-data) with the
keywords of npm emojilib@4.0.3. Licence: images Apache-2.0 (Noto), texts MIT. Layout: emoji_noto64/metadata.jsonl and
noto64.zip with the images that it names, or prepared by `python -m data.prepare emoji_noto64`.
Splits: 80 % training, 5 % validation, 15 % test by a fixed hash of the name, so that emoji of the same name are in the
same split.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import prepared
from data.pictures import Members, decode_picture
from data.records import Layout, Record, Rows
from data.rows import inner_path, read_rows, text, texts, unique
from data.splits import divided

FIELDS = {
    "image": inner_path,
    "code": text,
    "char": text,
    "name": text,
    "short_names": texts,
    "keywords": texts,
    "category": text,
    "subcategory": text,
}

ENDS = {"train": 0.8, "validation": 0.85, "test": 1.0}
"""Where each split ends, as a share of all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Emoji:
    """One emoji.

    Attributes:
        file: of the image.
        code: its code points in hexadecimal, joined by -.
        char: the emoji as text.
        name: what Unicode calls it, in small letters.
        short_names: as typed between colons.
        keywords: what one may look it up by, not always apt.
        category: one of a few, such as "Food & Drink".
        subcategory: one of many, such as "food-fruit".
        image: uint8 [64, 64, 4], the last is alpha. Another size in other folders of this layout.
    """

    file: str
    code: str
    char: str
    name: str
    short_names: tuple[str, ...]
    keywords: tuple[str, ...]
    category: str
    subcategory: str
    image: np.ndarray

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that it is called: the name, short names and keywords, each once."""
        return tuple(dict.fromkeys([self.name, *self.short_names, *self.keywords]))


def load(root: str | Path | None = None) -> dict[str, Sequence[Emoji]]:
    """The splits "train", "validation" and "test". An image is read when its item is asked for.

    Raises:
        InputError: the dataset is absent, or a line of the metadata lacks a field or names no image of the zip.
            A damaged image: when its item is asked for.
    """
    return prepared.load(LAYOUT, root)


def _rows(place: Path) -> dict[str, Rows]:
    source = place / "metadata.jsonl"
    rows = read_rows(source, FIELDS)
    unique(rows, "image", source)
    archive = Members(place / "noto64.zip")
    archive.check(rows, "image", source)
    light = [{"file": row.pop("image"), **row} for row in rows]
    whole = archive.with_image
    numbers = divided([row["name"].casefold() for row in light], ENDS)
    return {name: Rows(str(place), [light[number] for number in part], whole) for name, part in numbers.items()}


def _emoji(record: Record) -> Emoji:
    return Emoji(**{**record, "image": decode_picture(record["image"], record["file"], 4)})


def _features(tfds: Any) -> dict[str, Any]:
    several = {name: tfds.features.Sequence(tfds.features.Text()) for name in ("short_names", "keywords")}
    single = ("file", "code", "char", "name", "category", "subcategory")
    image = tfds.features.Image(shape=(None, None, 4), encoding_format="png")
    return {**{name: tfds.features.Text() for name in single}, **several, "image": image}


LAYOUT = Layout(
    "emoji_noto64",
    "npm: emoji-datasource-google@16.0.0 (img/google/64, emoji.json) and emojilib@4.0.3 (keywords)",
    "images Apache-2.0, texts MIT",
    _features,
    _rows,
    _emoji,
)
