"""Clip art, 96 x 96 pixels on white, with titles and keywords.

Origin: the Debian packages openclipart-png and openclipart-svg (1:0.18+dfsg-19), scaled down and de-duplicated; icons,
stars, flags and playing cards are left out. Licence: dedicated to the public domain. Layout:
openclipart96/captions.jsonl and images.zip with the images that it names, or prepared by `python -m data.prepare
openclipart96`.
Splits: 80 % training, 10 % validation, 10 % test, seeded; images of the same title are in the same split.
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

FIELDS = {"file": inner_path, "title": text, "keywords": texts, "category": texts}


@dataclasses.dataclass(frozen=True, eq=False)
class Clipart:
    """One image.

    Attributes:
        file: of the image.
        title: given by who drew it; some titles are those of a whole series.
        keywords: given by who drew it, or none.
        category: from the general to the particular, such as ("computer", "buttons").
        image: uint8 [96, 96, 3]. Another size in other folders of this layout.
    """

    file: str
    title: str
    keywords: tuple[str, ...]
    category: tuple[str, ...]
    image: np.ndarray

    @property
    def texts(self) -> tuple[str, ...]:
        """The title and the keywords, each once."""
        return tuple(dict.fromkeys([self.title, *self.keywords]))


def load(root: str | Path | None = None) -> dict[str, Sequence[Clipart]]:
    """The splits "train", "validation" and "test". An image is read when its item is asked for.

    Raises:
        InputError: the dataset is absent, or a line of the metadata lacks a field or names no image of the zip.
            A damaged image: when its item is asked for.
    """
    return prepared.load(LAYOUT, root)


def _rows(place: Path) -> dict[str, Rows]:
    source = place / "captions.jsonl"
    rows = read_rows(source, FIELDS)
    unique(rows, "file", source)
    archive = Members(place / "images.zip")
    archive.check(rows, "file", source)
    whole = archive.with_image
    numbers = divided([row["title"].casefold() for row in rows])
    return {name: Rows(str(place), [rows[number] for number in part], whole) for name, part in numbers.items()}


def _clipart(record: Record) -> Clipart:
    return Clipart(**{**record, "image": decode_picture(record["image"], record["file"], 3)})


def _features(tfds: Any) -> dict[str, Any]:
    return {
        "file": tfds.features.Text(),
        "title": tfds.features.Text(),
        "keywords": tfds.features.Sequence(tfds.features.Text()),
        "category": tfds.features.Sequence(tfds.features.Text()),
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    }


LAYOUT = Layout(
    "openclipart96",
    "the Debian packages openclipart-png and openclipart-svg",
    "public domain",
    _features,
    _rows,
    _clipart,
)
