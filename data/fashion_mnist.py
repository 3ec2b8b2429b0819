"""Fashion-MNIST: grey pictures of clothes, shoes and bags, 28 x 28 pixels, 60,000 for training and 10,000 as the test.

Origin: https://github.com/zalandoresearch/fashion-mnist (data/fashion; Xiao et al. 2017, arXiv 1708.07747). Licence:
MIT. Looked for in this order:
1. fashion_mnist/ below the root, with the four IDX files of the release (FILES), or with a prepared TFDS folder;
2. the Debian package dataset-fashion-mnist, which holds the same files: apt install dataset-fashion-mnist;
3. TFDS' own folder ($TFDS_DATA_DIR, else ~/tensorflow_datasets), prepared as array_record. Where it is not, TFDS
   prepares it now if TensorFlow is installed, which preparing this one takes, and the network is there.
Splits: the published test; of the training pictures a twelfth, 5,000, is validation, seeded, all classes alike.
"""

import dataclasses
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data import shards
from data.idx import read_idx
from data.pictures import decode_picture
from data.root import location
from data.splits import stratified
from perceiver.errors import InputError, naming
from perceiver.io.files import refusing

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
HELP = (
    "fashion_mnist is not there. Put the four .gz files of https://github.com/zalandoresearch/fashion-mnist into a "
    "folder of that name and name the folder above it with --root or PERCEIVER_DATA; or install the Debian package "
    "dataset-fashion-mnist; or prepare it with TFDS, which takes TensorFlow, and name its folder with TFDS_DATA_DIR"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """name: its place in the release; image: uint8 [28, 28, 1], 0 is background; label: its place in CLASSES."""

    name: str
    image: np.ndarray
    label: int


@dataclasses.dataclass(frozen=True, eq=False)
class Split(Sequence[Picture]):
    """Pictures. names: such as train/00017; images: uint8 [n, 28, 28, 1]; labels: int32 [n]."""

    names: Sequence[str] = dataclasses.field(repr=False)
    images: np.ndarray = dataclasses.field(repr=False)
    labels: np.ndarray = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Split(self.names[index], self.images[index], self.labels[index])
        return Picture(self.names[index], self.images[index], int(self.labels[index]))


def load(root: str | Path | None = None, seed: int = 0) -> dict[str, Split]:
    """The splits "train", "validation" and "test". seed: another seed gives another validation.

    Raises:
        InputError: the dataset is nowhere, the message says three ways to get it; or a file is damaged.
    """
    published = _published(root)
    names = {split: [f"{split}/{i:05}" for i in range(len(labels))] for split, (_, labels) in published.items()}
    images, labels = published["train"]
    numbers = stratified(names["train"], labels.tolist(), {"train": 11 / 12, "validation": 1}, seed)
    splits = {}
    for name, part in numbers.items():
        splits[name] = Split([names["train"][i] for i in part], images[part], labels[part])
    splits["test"] = Split(names["test"], *published["test"])
    if not any(map(len, splits.values())):
        raise InputError("fashion_mnist: expected at least one picture, got none")
    return splits


def _published(root: str | Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    own = location("fashion_mnist", root)
    tfds_folder = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser() / "fashion_mnist"
    if own.is_dir():
        return _from_tfds(built) if (built := shards.find(own)) else _from_idx(own)
    if DEBIAN.is_dir():
        return _from_idx(DEBIAN)
    if not shards.find(tfds_folder) and importlib.util.find_spec("tensorflow") and _online():
        _let_tfds_prepare()
    if built := shards.find(tfds_folder):
        return _from_tfds(built)
    raise InputError(HELP)


def _online() -> bool:
    """Whether the files' host answers; TFDS itself tries for minutes."""
    try:
        urllib.request.urlopen(urllib.request.Request(URL, method="HEAD"), timeout=3).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
    return True


def _let_tfds_prepare() -> None:
    import tensorflow_datasets as tfds

    with naming("fashion_mnist"), refusing("TFDS to prepare it"):
        tfds.data_source("fashion_mnist", builder_kwargs={"file_format": "array_record"})


def _from_tfds(place: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if not set(FILES) <= set(parts := shards.read(place, ("image", "label"))):
        raise InputError(f"{place}: expected the splits train and test, got {', '.join(parts)}")
    return {name: _arrays(parts[name]) for name in FILES}


def _arrays(part: shards.Shards) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.zeros((len(part), 28, 28, 1), np.uint8), np.zeros(len(part), np.int32)
    for i, record in enumerate(part):
        image = decode_picture(record["image"], f"{part.where}, record {i}", 1)
        if image.shape != images.shape[1:]:
            raise InputError(f"{part.where}, record {i}: expected 28 x 28 pixels, got {image.shape}")
        images[i], labels[i] = image, record["label"]
    _check_labels(part.where, labels)
    return images, labels


def _from_idx(place: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for name, (pictures, numbers) in FILES.items():
        images, labels = read_idx(place / pictures, (28, 28)), read_idx(place / numbers, ())
        if len(images) != len(labels):
            raise InputError(f"{place / numbers}: expected {len(images)} labels as of {pictures}, got {len(labels)}")
        _check_labels(str(place / numbers), labels)
        found[name] = images[..., None], labels.astype(np.int32)
    return found


def _check_labels(where: str, labels: np.ndarray) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        raise InputError(f"{where}: expected labels from 0 to 9, got {labels[wrong[0]]} at {wrong[0]}")
