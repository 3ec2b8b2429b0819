"""Photographs of COCO 2017 with five captions each, of those that may be passed on.

Origin: https://cocodataset.org (2017, captions and images; copies: https://github.com/Obmutescence/COCO-MINI and
https://github.com/lizhogn/tiny_coco_dataset). Licence: captions CC BY 4.0; each image its own, CC BY 2.0, CC BY-SA 2.0
or without known restrictions. Layout: coco_captions_cc/captions.jsonl and the images that it names, or prepared by
`python -m data.prepare coco_captions_cc`.
Splits: 80 % training, 10 % validation, 10 % test, seeded.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import prepared
from data.pictures import decode_picture
from data.records import Layout, Record, Rows
from data.rows import inner_path, integer, read_rows, text, texts, unique
from data.splits import divided
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file

FIELDS = {
    "id": integer,
    "file": inner_path,
    "captions": texts,
    "license": text,
    "flickr_url": text,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """One image.

    Attributes:
        id: its number in COCO.
        file: its path inside the dataset's folder.
        captions: sentences by different people, one or more, five in COCO.
        license: under which it may be passed on.
        flickr_url: where it came from.
        image: uint8 [h, w, 3]; h and w differ.
    """

    id: int
    file: str
    captions: tuple[str, ...]
    license: str
    flickr_url: str
    image: np.ndarray


def load(root: str | Path | None = None) -> dict[str, Sequence[Photograph]]:
    """The splits "train", "validation" and "test". An image is read when its item is asked for.

    Raises:
        InputError: the dataset is absent, or a line of the captions lacks a field or names no image.
            A damaged image: when its item is asked for.
    """
    return prepared.load(LAYOUT, root)


def _rows(place: Path) -> dict[str, Rows]:
    source = place / "captions.jsonl"
    rows = read_rows(source, FIELDS)
    unique(rows, "id", source)
    unique(rows, "file", source)
    for line, row in enumerate(rows, 1):
        if not row["captions"]:
            raise InputError(f"{source}, line {line}, field 'captions': expected at least one, got none")
        if not (place / row["file"]).is_file():
            raise InputError(f"{source}, line {line}: expected an image of the folder, got {row['file']!r}")
    whole = functools.partial(_with_image, place)
    numbers = divided([str(row["id"]) for row in rows])
    return {name: Rows(str(place), [rows[number] for number in part], whole) for name, part in numbers.items()}


def _with_image(place: Path, row: Record) -> Record:
    with naming(str(place / row["file"])):
        return {**row, "image": existing_file(place / row["file"]).read_bytes()}


def _photograph(record: Record) -> Photograph:
    image = decode_picture(record["image"], record["file"], 3)
    return Photograph(**{**record, "id": int(record["id"]), "image": image})


def _features(tfds: Any) -> dict[str, Any]:
    return {
        "id": tfds.features.Scalar(np.int64),
        "file": tfds.features.Text(),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "license": tfds.features.Text(),
        "flickr_url": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    }


LAYOUT = Layout(
    "coco_captions_cc",
    "https://cocodataset.org (2017), the images whose licence lets them be passed on",
    "captions CC BY 4.0; images CC BY 2.0, CC BY-SA 2.0 or without known restrictions, see the field license",
    _features,
    _rows,
    _photograph,
)
