"""Tiny folders in the layouts of the datasets, made by hand."""

import io
import json
import zipfile

import laspy
import numpy as np
from PIL import Image

from perceiver.io import write_wav


def picture(number, channels, kind):
    """An encoded picture of 8 x 6 pixels."""
    shape = (8, 6, channels) if channels > 1 else (8, 6)
    pixels = np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)
    handle = io.BytesIO()
    Image.fromarray(pixels).save(handle, kind)
    return handle.getvalue()


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def recordings(root, speakers=("anna", "Ben_2"), indices=range(0, 12, 2), digits=(3, 7), rate=8000):
    place = root / "fsdd" / "recordings"
    place.mkdir(parents=True)
    for speaker in speakers:
        for digit in digits:
            for index in indices:
                wave = np.sin(np.arange(300 + 10 * index + digit) / 5).astype(np.float32) / 2
                write_wav(place / f"{digit}_{speaker}_{index}.wav", wave, rate)
    return place


def emoji(root, count=30, same=0):
    """same: how many have the name of the first."""
    place = root / "emoji_noto64"
    place.mkdir(parents=True)
    rows = [
        {
            "image": f"{i:04x}.png",
            "code": f"{i:04x}",
            "char": chr(0x1F600 + i),
            "name": "The Same" if i < same else f"face {i}",
            "short_names": [f"f{i}", "face"],
            "keywords": [] if i % 3 else ["naïve", "face"],
            "category": "Smileys",
            "subcategory": "face",
            "unknown": None,
        }
        for i in range(count)
    ]
    lines(place / "metadata.jsonl", rows)
    zipped(place / "noto64.zip", {row["image"]: picture(i, 4, "PNG") for i, row in enumerate(rows)})
    return place


def openclipart(root, count=30, same=0):
    place = root / "openclipart96"
    place.mkdir(parents=True)
    rows = [
        {
            "file": f"art {i}.jpg",
            "title": f"Horse {0 if i < same else i}",
            "keywords": ["animal"] * (i % 3),
            "category": ["animals", "mammals"],
        }
        for i in range(count)
    ]
    lines(place / "captions.jsonl", rows)
    zipped(place / "images.zip", {row["file"]: picture(i, 3, "JPEG") for i, row in enumerate(rows)})
    return place


def coco(root, count=20):
    place = root / "coco_captions_cc"
    (place / "images").mkdir(parents=True)
    rows = [
        {
            "id": 10**10 + i,
            "file": f"images/{i:03}.jpg",
            "captions": [f"a dog {i}", "a „dog“"],
            "license": "CC BY 2.0",
            "flickr_url": f"http://example.org/{i}",
            "size": [6, 8],
        }
        for i in range(count)
    ]
    lines(place / "captions.jsonl", rows)
    for i, row in enumerate(rows):
        (place / row["file"]).write_bytes(picture(i, 3 if i % 4 else 1, "JPEG"))
    return place


def laser_file(path, count=200, form=3):
    """Points in a LAZ file; classes 1 and 2 by turns."""
    header = laspy.LasHeader(point_format=form, version="1.2")
    header.scales = [0.01] * 3
    points = laspy.LasData(header)
    rng = np.random.default_rng(0)
    points.X, points.Y, points.Z = rng.integers(0, 10_000, (3, count))
    points.intensity = rng.integers(0, 65536, count)
    points.return_number = points.number_of_returns = np.ones(count, np.uint8)
    points.classification = 1 + np.arange(count) % 2
    if form == 3:
        points.red, points.green, points.blue = rng.integers(0, 65536, (3, count))
    path.parent.mkdir(parents=True, exist_ok=True)
    points.write(path)


def same_items(a, b):
    """Whether two items agree in every field, arrays to the last bit and type."""
    assert type(a) is type(b)
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert type(value) is type(other), name
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype, name
            assert np.array_equal(value, other), name
        else:
            assert value == other, name
    return True
