import numpy as np
import pytest

from data import bridge_robot, wall_following_robot
from perceiver import InputError

HEADER = ",".join(wall_following_robot.HEADER)


def row(number, command="Move-Forward"):
    return ",".join([f"{number / 1000:.3f}"] * 24 + [command])


def tables(root, **files):
    place = root / "wall_following_robot"
    place.mkdir()
    for name, rows in files.items():
        (place / f"{name}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return place


def test_readings_of_all_files_are_divided_in_time(tmp_path):
    tables(tmp_path, b=[row(i, "Sharp-Right-Turn") for i in range(6, 10)], a=[row(i) for i in range(6)])
    splits = wall_following_robot.load(tmp_path)
    milli = {name: [round(float(one.ranges[0]) * 1000) for one in part] for name, part in splits.items()}
    assert milli == {"train": [0, 1, 2, 3, 4, 5, 6], "validation": [7], "test": [8, 9]}
    one = splits["test"][0]
    assert (one.ranges.shape, one.ranges.dtype, one.command) == ((24,), np.float32, 2)


def test_one_row_leaves_splits_empty_and_none_is_refused(tmp_path):
    place = tables(tmp_path, a=[row(1)])
    assert sorted(len(part) for part in wall_following_robot.load(tmp_path).values()) == [0, 0, 1]
    (place / "a.csv").write_text(HEADER + "\n")
    with pytest.raises(InputError, match="wall_following_robot: expected at least one row, got none"):
        wall_following_robot.load(tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(2, "Stop"), "line 3, column OUTPUT: expected one of Move-Forward, .*, got 'Stop'"),
        (row(2) + ",1", "line 3: expected 25 columns, got 26"),
        ("", "line 3: expected 25 columns, got 0"),
        (row(2).replace("0.002", "x", 1), "line 3, column S1: expected metres, 0 or more, got 'x'"),
        ("0.1," + row(2).replace("0.002,", "nan,", 2)[4:], "line 3, column S2: expected metres, 0 or more, got 'nan'"),
        (row(-2), "line 3, column S1: expected metres, 0 or more, got '-0.002'"),
        (row(2).replace("0.002", "inf", 1), "line 3, column S1: expected metres, 0 or more, got 'inf'"),
    ],
)
def test_a_bad_reading_is_named_by_file_line_and_column(bad, message, tmp_path):
    tables(tmp_path, a=[row(1)], b=[row(1), bad, row(3)])
    with pytest.raises(InputError, match=rf"b\.csv, {message}"):
        wall_following_robot.load(tmp_path)


def test_a_table_with_other_columns_or_encoding_is_named(tmp_path):
    place = tables(tmp_path)
    (place / "a.csv").write_text("time," + HEADER + "\n")
    with pytest.raises(InputError, match=r"a\.csv, line 1: expected the columns S1 to S24 and OUTPUT"):
        wall_following_robot.load(tmp_path)
    (place / "a.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a\.csv: expected a table in UTF-8"):
        wall_following_robot.load(tmp_path)


def episodes(count, start=0, **changes):
    number = np.arange(start, start + count, dtype=np.float32)[:, None, None]
    images = np.broadcast_to(number.astype(np.uint8)[..., None, None], (count, 5, 6, 8, 3))
    found = {
        "image_0": images,
        "image_1": images + 1,
        "image_2": images + 2,
        "state": number + np.arange(7, dtype=np.float32) + np.zeros((count, 5, 7), np.float32),
        "action": np.zeros((count, 5, 7), np.float32),
        "instruction": np.array([f"do {i}" for i in range(start, start + count)], dtype="U20"),
        "language_embedding": np.zeros((count, 4), np.float32),
    }
    return found | changes


def write(root, **files):
    (root / "bridge_robot").mkdir(exist_ok=True)
    for name, content in files.items():
        np.savez_compressed(root / "bridge_robot" / f"{name}.npz", **content)


def test_episodes_keep_images_states_actions_and_words_together(tmp_path):
    write(tmp_path, a=episodes(12), b=episodes(8, start=12))
    splits = bridge_robot.load(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 16, "validation": 2, "test": 2}
    everything = [one for part in splits.values() for one in part]
    assert sorted(int(one.state[0, 0]) for one in everything) == list(range(20))
    for one in everything:
        number = int(one.state[0, 0])
        assert one.instruction == f"do {number}"
        assert one.images.shape == (3, 5, 6, 8, 3)
        assert [int(one.images[camera].max()) for camera in range(3)] == [number, number + 1, number + 2]
        assert one.state.shape == one.action.shape == (5, 7)
    chosen = [one.instruction for one in splits["test"]]
    assert [one.instruction for one in bridge_robot.load(tmp_path)["test"]] == chosen
    assert [one.instruction for one in bridge_robot.load(tmp_path, seed=1)["test"]] != chosen


def test_the_same_episode_twice_is_in_one_split(tmp_path):
    write(tmp_path, train=episodes(20), val=episodes(20))
    told = [{one.instruction for one in part} for part in bridge_robot.load(tmp_path).values()]
    assert sum(map(len, told)) == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros((4, 5, 6), np.float32)}, r"action: expected \[4, 5, 7\], got \[4, 5, 6\]"),
        ({"image_1": np.zeros((4, 5, 6, 9, 3), np.uint8)}, r"image_1: expected \[4, 5, 6, 8, 3\], got"),
        ({"instruction": np.array(["a"])}, r"instruction: expected \[4\], got \[1\]"),
        ({"instruction": np.array([None] * 4)}, "expected an npz file of plain arrays, got ValueError: Object arrays"),
        ({"state": np.full((4, 5, 7), np.inf, np.float32)}, r"state: expected finite numbers, got inf at \[0, 0, 0\]"),
    ],
)
def test_arrays_that_do_not_agree_are_named(changes, message, tmp_path):
    write(tmp_path, a=episodes(4, **changes))
    with pytest.raises(InputError, match=rf"a\.npz: {message}"):
        bridge_robot.load(tmp_path)


def test_few_episodes_leave_splits_empty_and_none_are_refused(tmp_path):
    write(tmp_path, a=episodes(1))
    assert [len(part) for part in bridge_robot.load(tmp_path).values()] == [1, 0, 0]
    write(tmp_path, a=episodes(0))
    with pytest.raises(InputError, match="bridge_robot: expected at least one episode, got none"):
        bridge_robot.load(tmp_path)


def test_the_real_robots(data_root):
    splits = wall_following_robot.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 3055, "validation": 436, "test": 873}
    assert max(float(one.ranges.max()) for part in splits.values() for one in part) <= 5.1
    arms = bridge_robot.load(data_root)
    assert {name: len(part) for name, part in arms.items()} == {"train": 17, "validation": 2, "test": 2}
    assert len({one.instruction for part in arms.values() for one in part}) == 4
