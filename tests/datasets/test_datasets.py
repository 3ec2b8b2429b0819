import numpy as np
import pytest

from data import (
    autzen_trim,
    banking77,
    bridge_robot,
    coco_captions_cc,
    digits,
    emoji_noto64,
    fsdd,
    ign_lidarhd,
    openclipart96,
    ouster_scans,
    sentence_polarity,
    sintel_frames,
    tinyshakespeare,
    wall_following_robot,
)
from data.root import files, folder
from perceiver import InputError

FROM_FILES = [
    autzen_trim,
    banking77,
    bridge_robot,
    coco_captions_cc,
    emoji_noto64,
    fsdd,
    ign_lidarhd,
    openclipart96,
    ouster_scans,
    sentence_polarity,
    sintel_frames,
    tinyshakespeare,
    wall_following_robot,
]


@pytest.mark.parametrize("dataset", FROM_FILES, ids=lambda dataset: dataset.__name__)
def test_an_absent_dataset_says_where_it_comes_from_and_how_to_name_it(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path))
    monkeypatch.delenv("PERCEIVER_PREPARED", raising=False)
    name = dataset.__name__.removeprefix("data.")
    with pytest.raises(InputError, match=rf"{tmp_path}/{name}: .*Get it from .*--root or PERCEIVER_DATA"):
        dataset.load()
    with pytest.raises(InputError, match=rf"elsewhere/{name}: "):
        dataset.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("dataset", FROM_FILES, ids=lambda dataset: dataset.__name__)
def test_an_empty_folder_is_named(dataset, tmp_path):
    name = dataset.__name__.removeprefix("data.")
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{tmp_path}/{name}.*expected .*, got no"):
        dataset.load(tmp_path)


def test_the_root_option_goes_before_the_variable(tmp_path, monkeypatch):
    (tmp_path / "option" / "set").mkdir(parents=True)
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path / "variable"))
    assert folder("set", tmp_path / "option", "") == tmp_path / "option" / "set"


def test_files_are_in_the_order_of_their_names(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files(tmp_path, "*.csv")] == ["a.csv", "b.csv"]


def test_digits_splits_are_stratified_apart_and_complete():
    splits = digits.load()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1212, "validation": 135, "test": 450}
    assert splits["test"].images.dtype == np.uint8
    assert splits["test"].images.max() == 255
    shares = [np.bincount(split.labels, minlength=10) / len(split) for split in splits.values()]
    assert np.abs(shares[0] - shares[2]).max() < 0.01
    assert not np.array_equal(splits["test"].labels, digits.load(1)["test"].labels)
    assert np.array_equal(splits["test"].images, digits.load(0)["test"].images)


def test_every_digit_has_a_name_in_every_language():
    assert len(digits.NAMES) >= 5
    assert all(len(names) == 10 and len(set(names)) == 10 for names in digits.NAMES.values())
