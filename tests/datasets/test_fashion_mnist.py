import gzip
import struct
import time

import numpy as np
import pytest

from data import fashion_mnist, prepared
from data.idx import read_idx
from data.records import Layout, Rows
from perceiver import InputError
from tests.small_data import idx


@pytest.fixture
def place(tmp_path):
    """A folder with 240 training and 20 test pictures, of which the first pixel is the label."""
    place = tmp_path / "fashion_mnist"
    place.mkdir()
    for (pictures, labels), count in zip(fashion_mnist.FILES.values(), (240, 20), strict=True):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        images[:, 0, 0] = np.arange(count) % 10
        idx(place / pictures, images)
        idx(place / labels, np.arange(count) % 10)
    return place


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No Debian package, no TFDS folder."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-package")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.delenv("PERCEIVER_DATA", raising=False)


def test_a_twelfth_of_every_class_is_validation(place):
    splits = fashion_mnist.load(place.parent)
    assert {name: len(split) for name, split in splits.items()} == {"train": 220, "validation": 20, "test": 20}
    assert np.bincount(splits["validation"].labels).tolist() == [2] * 10
    for split in splits.values():
        assert split.images.dtype == np.uint8
        assert split.images.shape[1:] == (28, 28, 1)
        assert split.labels.dtype == np.int32
        assert np.array_equal(split.images[:, 0, 0, 0], split.labels)
    one = splits["test"][3]
    assert one.name == "test/00003"
    names = [item.name for name in ("train", "validation") for item in splits[name]]
    assert sorted(names) == [f"train/{i:05}" for i in range(240)]
    assert (one.label, one.image.shape, one.image[0, 0, 0]) == (3, (28, 28, 1), 3)
    assert [item.label for item in splits["test"][2:4]] == [2, 3]
    again, other = fashion_mnist.load(place.parent), fashion_mnist.load(place.parent, seed=1)
    assert np.array_equal(again["validation"].images, splits["validation"].images)
    assert not np.array_equal(other["validation"].images, splits["validation"].images)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda data: data[:-40], "expected an IDX file in gzip, got EOFError"),
        ("train-images-idx3-ubyte.gz", lambda data: b"no gzip", "expected an IDX file in gzip, got BadGzipFile"),
        ("train-images-idx3-ubyte.gz", lambda data: b"", "expected content, got an empty file"),
        (
            "t10k-images-idx3-ubyte.gz",
            lambda data: gzip.compress(struct.pack(">4I", 0x0803, 20, 28, 27) + bytes(20 * 28 * 27)),
            r"expected the sizes \['0 to 1000000', 28, 28\], got \[20, 28, 27\]",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            lambda data: gzip.compress(struct.pack(">4I", 0x0803, 20, 28, 28) + bytes(19 * 784)),
            "expected 15680 bytes after the header, got 14896",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            lambda data: gzip.compress(gzip.decompress(data) + b"0"),
            "expected 15680 bytes after the header, got more",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda data: gzip.compress(struct.pack(">2I", 0x0D01, 20) + bytes(20)),
            "expected the magic number 0x00000801 and 1 sizes, got the bytes '00000d01",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda data: gzip.compress(struct.pack(">2I", 0x0801, 19) + bytes(19)),
            "expected 20 labels as of t10k-images-idx3-ubyte.gz, got 19",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda data: gzip.compress(struct.pack(">2I", 0x0801, 20) + bytes(7) + b"\x0a" + bytes(12)),
            "expected labels from 0 to 9, got 10 at 7",
        ),
    ],
)
def test_a_damaged_file_is_named(file, damage, message, place):
    (place / file).write_bytes(damage((place / file).read_bytes()))
    with pytest.raises(InputError, match=f"{file}: {message}"):
        fashion_mnist.load(place.parent)


def test_a_missing_file_is_named(place):
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte\.gz: expected .* no such file"):
        fashion_mnist.load(place.parent)


def test_labels_alone_can_be_read(tmp_path):
    idx(tmp_path / "labels.gz", np.zeros(0))
    assert read_idx(tmp_path / "labels.gz", ()).shape == (0,)


def test_no_pictures_at_all_are_refused_but_an_empty_split_is_not(place):
    for pictures, labels in [fashion_mnist.FILES["train"]]:
        idx(place / pictures, np.zeros((0, 28, 28)))
        idx(place / labels, np.zeros(0))
    assert [len(split) for split in fashion_mnist.load(place.parent).values()] == [0, 0, 20]
    for pictures, labels in [fashion_mnist.FILES["test"]]:
        idx(place / pictures, np.zeros((0, 28, 28)))
        idx(place / labels, np.zeros(0))
    with pytest.raises(InputError, match="expected at least one picture, got none"):
        fashion_mnist.load(place.parent)


@pytest.mark.usefixtures("nowhere")
def test_where_it_is_nowhere_three_ways_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist.importlib.util, "find_spec", lambda name: None)
    start = time.perf_counter()
    with pytest.raises(
        InputError, match=r"fashion_mnist is not there.*--root or PERCEIVER_DATA.*Debian package.*TFDS_DATA_DIR"
    ):
        fashion_mnist.load(tmp_path)
    assert time.perf_counter() - start < 2


@pytest.mark.usefixtures("nowhere")
def test_tfds_is_asked_only_with_tensorflow_and_a_network(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fashion_mnist, "_let_tfds_prepare", lambda: asked.append(True))
    monkeypatch.setattr(fashion_mnist.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(fashion_mnist, "URL", "http://127.0.0.1:9/")  # nothing listens there
    with pytest.raises(InputError, match="Debian package"):
        fashion_mnist.load(tmp_path)
    assert asked == []
    monkeypatch.setattr(fashion_mnist, "_online", lambda: True)
    with pytest.raises(InputError, match="Debian package"):
        fashion_mnist.load(tmp_path)
    assert asked == [True]


def test_the_debian_package_is_read_where_the_root_has_none(place, tmp_path, monkeypatch):
    place.rename(tmp_path / "package")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "package")
    assert len(fashion_mnist.load(tmp_path)["test"]) == 20


def tfds_features(tfds):
    return {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}


def tfds_records(place):
    parts = {"train": Rows("", [{"label": i % 10} for i in range(24)], with_picture)}
    return parts | {"test": Rows("", [{"label": 3}], with_picture)}


def with_picture(row):
    from io import BytesIO

    from PIL import Image

    image = Image.new("L", (28, 28), row["label"])
    handle = BytesIO()
    image.save(handle, "PNG")
    return {**row, "image": handle.getvalue()}


@pytest.mark.parametrize("under_root", [True, False])
@pytest.mark.usefixtures("nowhere")
def test_what_tfds_prepared_is_read(under_root, tmp_path, monkeypatch):
    layout = Layout("fashion_mnist", "", "", tfds_features, tfds_records, dict)
    (tmp_path / "raw" / "fashion_mnist").mkdir(parents=True)
    monkeypatch.setattr(prepared, "SPLITS", ("train", "test"))
    prepared.prepare(layout, tmp_path / "raw", tmp_path / "tfds")
    splits = fashion_mnist.load(tmp_path / ("tfds" if under_root else "elsewhere"))
    assert [len(split) for split in splits.values()] == [24, 0, 1]
    assert all((item.image == item.label).all() for split in splits.values() for item in split)


def test_the_package_that_debian_ships():
    if not fashion_mnist.DEBIAN.is_dir():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    splits = fashion_mnist.load()
    assert {name: len(split) for name, split in splits.items()} == {"train": 55000, "validation": 5000, "test": 10000}
    assert np.bincount(splits["validation"].labels).tolist() == [500] * 10
    assert np.bincount(splits["test"].labels).tolist() == [1000] * 10
