import numpy as np
import pytest

from data import banking77, digits, fsdd, ign_lidarhd
from data.root import folder
from perceiver import InputError
from perceiver.io import write_wav


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


def test_an_absent_dataset_says_where_it_comes_from_and_how_to_name_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"fsdd.*github\.com/Jakobovski.*--root or PERCEIVER_DATA"):
        fsdd.load()
    with pytest.raises(InputError, match=r"elsewhere/ign_lidarhd.*IGNF"):
        ign_lidarhd.load(tmp_path / "elsewhere")


def test_the_root_option_goes_before_the_variable(tmp_path, monkeypatch):
    (tmp_path / "option" / "set").mkdir(parents=True)
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path / "variable"))
    assert folder("set", tmp_path / "option", "") == tmp_path / "option" / "set"


def write_recordings(root):
    place = root / "fsdd" / "recordings"
    place.mkdir(parents=True)
    for index in (0, 5, 10):
        write_wav(place / f"7_anna_{index}.wav", np.sin(np.arange(900) / 5).astype(np.float32) / 2, 8000)
    return place


def test_spoken_digits_of_any_folder_of_that_layout_are_read(tmp_path):
    write_recordings(tmp_path)
    splits = fsdd.load(tmp_path)
    assert {name: [r.index for r in part] for name, part in splits.items()} == {
        "train": [10],
        "validation": [5],
        "test": [0],
    }
    assert (splits["test"][0].digit, splits["test"][0].speaker, splits["test"][0].rate) == (7, "anna", 8000)


def test_a_recording_with_another_name_is_named(tmp_path):
    write_recordings(tmp_path).joinpath("seven.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"seven\.wav: expected a name such as"):
        fsdd.load(tmp_path)


def test_a_question_with_an_unknown_category_is_named_by_line(tmp_path):
    place = tmp_path / "banking77"
    place.mkdir()
    (place / "categories.json").write_text('["a", "b"]')
    for name in ("train", "test"):
        (place / f"{name}.csv").write_text("text,category\nhow?,a\nwhy?,c\n")
    with pytest.raises(InputError, match=r"train\.csv, line 3.*known category"):
        banking77.load(tmp_path)


def test_a_crop_is_centred_stands_on_its_ground_and_keeps_labels_with_points():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 30, (5000, 2)), rng.uniform(5, 9, 5000), np.arange(5000.0)])
    tile = ign_lidarhd.Tile(None, points, (np.arange(5000) % 7).astype(np.int32))
    one = ign_lidarhd.crop(tile, np.array([10.0, 10.0]), 10.0, 200, rng)
    assert one.points.shape == (200, 4)
    assert np.abs(one.points[:, :2]).max() <= 5.0
    assert 0 <= one.points[:, 2].min() < 1
    assert np.array_equal(one.labels, one.points[:, 3].astype(int) % 7)
    assert ign_lidarhd.crop(tile, np.array([90.0, 90.0]), 10.0, 200, rng) is None


def test_the_real_spoken_digits(data_root):
    splits = fsdd.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 1600, "validation": 200, "test": 200}
    assert {r.digit for r in splits["test"]} == set(range(10))
    assert all(np.abs(r.wave).max() <= 1 for r in splits["test"])


def test_the_real_laser_tiles(data_root):
    splits = ign_lidarhd.load(data_root)
    assert [len(part) for part in splits.values()] == [3, 1, 1]
    found = ign_lidarhd.crops(splits["test"], 10.0, 10.0, 512)
    assert len(found) == 25
    assert {label for one in found for label in one.labels} == {-1, 0, 1, 2, 3, 4}


def test_the_real_questions(data_root):
    splits = banking77.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 9002, "validation": 1001, "test": 3080}
    assert len(banking77.categories(data_root)) == 77
