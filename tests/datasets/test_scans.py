"""Laser scans and frames of film: datasets of a few large files."""

import numpy as np
import pytest

from data import autzen_trim, ign_lidarhd, ouster_scans, sintel_frames
from perceiver import InputError
from perceiver.io import write_png
from tests.datasets.making import laser_file


def test_a_strip_is_a_part_of_the_cloud_from_west_to_east_in_metres(tmp_path):
    laser_file(tmp_path / "autzen_trim" / "a.laz", 200)
    laser_file(tmp_path / "autzen_trim" / "b.laz", 100)
    splits = autzen_trim.load(tmp_path)
    counts = {name: [len(strip.labels) for strip in part] for name, part in splits.items()}
    assert counts == {"train": [140, 70], "validation": [20, 10], "test": [40, 20]}
    train, validation, test = (splits[name][0] for name in counts)
    assert train.points[:, 0].max() <= validation.points[:, 0].min() <= test.points[:, 0].min()
    assert train.points.shape == (140, 9)
    together = np.concatenate([train.points, validation.points, test.points])
    assert 95 * 0.3048 < together[:, :3].max() < 100 * 0.3048
    assert together[:, :3].min() == 0
    assert len(np.unique(together, axis=0)) == 200
    assert {*train.labels, *test.labels} == {0, 1}
    assert test.labels.dtype == np.int32


def test_a_file_of_few_points_leaves_splits_empty(tmp_path):
    laser_file(tmp_path / "autzen_trim" / "a.laz", 1)
    assert [len(part) for part in autzen_trim.load(tmp_path).values()] == [1, 0, 0]


def test_a_cloud_without_colours_is_refused(tmp_path):
    laser_file(tmp_path / "autzen_trim" / "a.laz", form=0)
    with pytest.raises(InputError, match=r"a\.laz: expected the point feature 'red', got \['classification'"):
        autzen_trim.load(tmp_path)


@pytest.mark.parametrize(("count", "expected"), [(1, "||a"), (2, "||ab"), (3, "a|b|c"), (4, "ab|c|d")])
def test_the_last_tiles_are_validation_and_test(count, expected, tmp_path):
    for name in "abcd"[:count]:
        laser_file(tmp_path / "ign_lidarhd" / f"{name}.laz", 50)
    splits = ign_lidarhd.load(tmp_path)
    assert "|".join("".join(tile.path.stem for tile in part) for part in splits.values()) == expected
    whole = ign_lidarhd.load(tmp_path, validation=False)
    assert "".join(tile.path.stem for part in whole.values() for tile in part) == "abcd"[:count]
    assert list(whole["validation"]) == []
    assert len(whole["test"]) == len(splits["test"])


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


def arrays(signal=True, **changes):
    rng = np.random.default_rng(0)
    found = {
        "xyz": rng.normal(size=(4, 16, 3)).astype(np.float32),
        "RANGE": np.full((4, 16), 1500, np.uint32),
        "REFLECTIVITY": np.zeros((4, 16), np.uint8),
        "NEAR_IR": np.zeros((4, 16), np.uint16),
    }
    return found | ({"SIGNAL": np.ones((4, 16), np.uint16)} if signal else {}) | changes


def scans(tmp_path, **files):
    (tmp_path / "ouster_scans").mkdir()
    for name, content in files.items():
        np.savez_compressed(tmp_path / "ouster_scans" / f"{name}.npz", **content)


def test_revolutions_are_images_of_ranges_in_metres(tmp_path):
    scans(tmp_path, a=arrays(), b=arrays(signal=False), c=arrays())
    splits = ouster_scans.load(tmp_path)
    assert [[scan.file for scan in part] for part in splits.values()] == [["a.npz"], ["b.npz"], ["c.npz"]]
    scan = splits["train"][0]
    assert scan.range.dtype == scan.xyz.dtype == np.float32
    assert (scan.range == 1.5).all()
    assert scan.xyz.shape == (4, 16, 3)
    assert scan.signal.dtype == np.uint16
    assert splits["validation"][0].signal is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANGE": np.zeros((4, 16), np.int64)}, r"RANGE: expected uint32 with 2 axes, got int64 \[4, 16\]"),
        ({"NEAR_IR": np.zeros((4, 15), np.uint16)}, r"NEAR_IR: expected \[4, 16\] as of RANGE, got \[4, 15\]"),
        ({"xyz": np.full((4, 16, 3), np.nan, np.float32)}, r"xyz: expected finite numbers, got nan at \[0, 0, 0\]"),
        ({"xyz": np.array([[[None]]])}, "expected an npz file of plain arrays, got ValueError: Object arrays"),
    ],
)
def test_a_bad_array_is_named_on_access(changes, message, tmp_path):
    scans(tmp_path, a=arrays(**changes))
    part = ouster_scans.load(tmp_path)["test"]
    with pytest.raises(InputError, match=rf"a\.npz: {message}"):
        part[0]


def test_a_damaged_or_incomplete_archive_is_named_on_access(tmp_path):
    scans(tmp_path, a=arrays(), b={"RANGE": np.zeros((4, 16), np.uint32)})
    whole = (tmp_path / "ouster_scans" / "a.npz").read_bytes()
    (tmp_path / "ouster_scans" / "a.npz").write_bytes(whole[: len(whole) // 2])
    part = ouster_scans.load(tmp_path)["test"]
    with pytest.raises(InputError, match=r"a\.npz: expected an npz file of plain arrays"):
        part[0]
    with pytest.raises(InputError, match=r"b\.npz: expected the array 'NEAR_IR', got \['RANGE'\]"):
        part[1]


def test_frames_are_in_the_order_of_their_numbers_and_read_on_access(tmp_path):
    place = tmp_path / "sintel_frames"
    place.mkdir()
    for number in (9, 10, 100, 11):
        write_png(place / f"frame_{number}.png", np.full((6, 8, 3), number, np.uint8))
    (place / "frame_11.png").write_bytes(b"no picture")
    splits = sintel_frames.load(tmp_path)
    assert [frame.number for frame in splits["train"]] == [9, 10]
    assert splits["test"][0].number == 100
    assert splits["test"][0].image.shape == (6, 8, 3)
    with pytest.raises(InputError, match=r"frame_11\.png: expected an image"):
        splits["validation"][0]
    (place / "cover.png").touch()
    with pytest.raises(InputError, match=r"cover\.png: expected a name such as frame_0016\.png"):
        sintel_frames.load(tmp_path)


def test_the_real_scans_and_frames(data_root):
    strips = autzen_trim.load(data_root)
    assert [len(part[0].labels) for part in strips.values()] == [77_000, 11_000, 22_000]
    assert sum(int((part[0].labels == 1).sum()) for part in strips.values()) == 26_107
    scan = ouster_scans.load(data_root)["test"][0]
    returned = scan.range > 0
    assert not scan.xyz[~returned].any()
    distance = np.linalg.norm(scan.xyz, axis=2)[returned]
    assert np.abs(distance - scan.range[returned]).max() < 0.1  # the beams start a little off the origin
    assert sintel_frames.load(data_root)["test"][0].image.shape == (436, 1024, 3)


def test_the_real_laser_tiles(data_root):
    splits = ign_lidarhd.load(data_root)
    assert [len(part) for part in splits.values()] == [3, 1, 1]
    found = ign_lidarhd.crops(splits["test"], 10.0, 10.0, 512)
    assert len(found) == 25
    assert {label for one in found for label in one.labels} == {-1, 0, 1, 2, 3, 4}
