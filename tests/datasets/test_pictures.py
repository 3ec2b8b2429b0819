"""Emoji, clip art and photographs with texts, from their own files; test_prepared.py has the other form."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data import coco_captions_cc, emoji_noto64, openclipart96
from data.pictures import decode_picture
from perceiver import InputError
from tests.datasets.making import coco, emoji, lines, openclipart, picture, zipped


def changed(path, line, **fields):
    """Change fields of one row of a file of JSON lines."""
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    rows[line - 1] |= fields
    lines(path, rows)


def test_emoji_have_pictures_and_texts(tmp_path):
    emoji(tmp_path)
    splits = emoji_noto64.load(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 24, "validation": 2, "test": 4}
    items = sorted((item for part in splits.values() for item in part), key=lambda item: item.code)
    assert [item.code for item in items] == [f"{i:04x}" for i in range(30)]
    one = items[3]
    assert (one.file, one.char, one.name, one.category) == ("0003.png", "\U0001f603", "face 3", "Smileys")
    assert one.texts == ("face 3", "f3", "face", "naïve")
    assert one.image.shape == (8, 6, 4)
    assert np.array_equal(one.image, decode_picture(picture(3, 4, "PNG"), "", 4))


@pytest.mark.parametrize(
    ("make", "dataset", "field"),
    [(emoji, emoji_noto64, "name"), (openclipart, openclipart96, "title")],
    ids=["emoji", "openclipart"],
)
def test_a_name_is_in_one_split_whatever_its_case(make, dataset, field, tmp_path):
    place = make(tmp_path, count=60, same=20)
    source = next(place.glob("*.jsonl"))
    first = json.loads(source.read_text(encoding="utf-8").splitlines()[0])[field]
    changed(source, 2, **{field: first.upper()})
    names = [{getattr(item, field).casefold() for item in part} for part in dataset.load(tmp_path).values()]
    assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
    again = [{getattr(item, field).casefold() for item in part} for part in dataset.load(tmp_path).values()]
    assert names == again


def test_clip_art_has_pictures_and_texts(tmp_path):
    openclipart(tmp_path)
    items = [item for part in openclipart96.load(tmp_path).values() for item in part]
    one = next(item for item in items if item.file == "art 2.jpg")
    assert len(items) == 30
    assert (one.title, one.keywords, one.category) == ("Horse 2", ("animal", "animal"), ("animals", "mammals"))
    assert one.texts == ("Horse 2", "animal")
    assert one.image.shape == (8, 6, 3)


def test_photographs_have_captions_and_licences(tmp_path):
    coco(tmp_path)
    splits = coco_captions_cc.load(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 16, "validation": 2, "test": 2}
    items = [item for part in splits.values() for item in part]
    assert len({item.id for item in items}) == 20
    one = next(item for item in items if item.id == 10**10)
    assert (one.file, one.captions, one.license) == ("images/000.jpg", ("a dog 0", "a „dog“"), "CC BY 2.0")
    assert one.image.shape == (8, 6, 3)  # this one is grey in its file


def test_few_items_leave_splits_empty(tmp_path):
    emoji(tmp_path, count=1)
    assert [len(part) for part in emoji_noto64.load(tmp_path).values()] == [1, 0, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "gone.png"}, r"line 2: expected a file inside .*noto64\.zip, got 'gone\.png'"),
        ({"image": "../0001.png"}, r"line 2, field 'image': expected the path of a file inside the dataset"),
        ({"image": "0000.png"}, r"line 2: expected another image than line 1, got '0000\.png'"),
        ({"name": None}, "line 2, field 'name': expected a text, got None"),
    ],
)
def test_a_bad_row_of_the_metadata_is_named(fields, message, tmp_path):
    changed(emoji(tmp_path) / "metadata.jsonl", 2, **fields)
    with pytest.raises(InputError, match=rf"metadata\.jsonl, {message}"):
        emoji_noto64.load(tmp_path)


def test_a_photograph_that_is_not_there_or_has_no_caption_is_named(tmp_path):
    place = coco(tmp_path)
    changed(place / "captions.jsonl", 3, file="images/none.jpg")
    with pytest.raises(InputError, match=r"captions\.jsonl, line 3: expected an image of the folder, got 'images/none"):
        coco_captions_cc.load(tmp_path)
    changed(place / "captions.jsonl", 3, file="images/002.jpg", captions=[])
    with pytest.raises(InputError, match=r"captions\.jsonl, line 3, field 'captions': expected at least one"):
        coco_captions_cc.load(tmp_path)


def test_a_damaged_picture_is_named_on_access(tmp_path):
    place = emoji(tmp_path, count=2)
    zipped(place / "noto64.zip", {"0000.png": picture(0, 4, "PNG")[:-20], "0001.png": b"no image"})
    items = emoji_noto64.load(tmp_path)["train"]
    for i, name in enumerate(("0000.png", "0001.png")):
        with pytest.raises(InputError, match=rf"emoji_noto64: {name}: expected (an image|a PNG that ends)"):
            items[i]


def test_a_damaged_zip_is_named(tmp_path):
    path = emoji(tmp_path) / "noto64.zip"
    data = path.read_bytes()
    start = data.index(b"IDAT")  # inside the first picture, which is stored as it is
    path.write_bytes(data[:start] + b"!" + data[start + 1 :])
    items = [item for part in emoji_noto64.load(tmp_path).values() for item in part.keys]
    with pytest.raises(InputError, match=r"noto64\.zip: 0000\.png: expected a whole file inside the zip"):
        [part[i] for part, i in items]
    path.write_bytes(data[:-30])
    with pytest.raises(InputError, match=r"noto64\.zip: expected a zip file"):
        emoji_noto64.load(tmp_path)


def test_a_picture_is_turned_as_its_camera_was():
    exif = Image.Exif()
    exif[0x0112] = 6
    handle = io.BytesIO()
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(handle, "JPEG", exif=exif)
    assert decode_picture(handle.getvalue(), "x", 3).shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("dataset", "counts", "shape"),
    [
        (emoji_noto64, [1297, 81, 243], (64, 64, 4)),
        (openclipart96, [1987, 243, 246], (96, 96, 3)),
        (coco_captions_cc, [55, 7, 6], None),
    ],
    ids=["emoji", "openclipart", "coco"],
)
def test_the_real_pictures(dataset, counts, shape, data_root):
    splits = dataset.load(data_root)
    assert [len(part) for part in splits.values()] == counts
    for item in splits["test"]:
        assert shape in (None, item.image.shape)
        assert item.image.dtype == np.uint8
