import json
import shutil

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from perceiver import InputError
from perceiver.control.lerobot import IMAGE, VIDEO, Dataset, Feature, Writer, layout

FEATURES = {
    "observation.state": Feature("float32", (3,), ("x", "y", "grip")),
    "observation.points.lidar": Feature("float32", (5, 4)),
    "observation.images.front": Feature(IMAGE, (8, 6, 3)),
    "observation.images.wrist": Feature(VIDEO, (64, 48, 3)),
    "action": Feature("float32", (2,)),
    "next.reward": Feature("float64", (1,)),
    "next.done": Feature("bool", (1,)),
    "note": Feature("string", (1,)),
}
EPISODES = (4, 7, 3)


def episode(length, number=0):
    rng = np.random.default_rng(number)
    shade = (40 + 30 * number + 8 * np.arange(length)).astype(np.uint8)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "observation.points.lidar": rng.normal(size=(length, 5, 4)).astype(np.float32),
        "observation.images.front": rng.integers(0, 256, (length, 8, 6, 3), np.uint8),
        "observation.images.wrist": np.broadcast_to(shade[:, None, None, None], (length, 64, 48, 3)),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.reward": rng.normal(size=length),
        "next.done": np.arange(length) == length - 1,
        "note": np.array([f"frame {step}" for step in range(length)], object),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "reach"
    with Writer(folder, 10, FEATURES, robot="arm") as writer:
        for number, length in enumerate(EPISODES):
            tasks = "reach" if number else ["reach", "reach", "grasp", "grasp"]
            writer.add(episode(length, number), tasks)
    return folder


def test_what_is_written_is_read(folder):
    data = Dataset(folder)
    assert [len(one) for one in data] == list(EPISODES)
    assert (data.info.rate, data.info.robot, data.info.frames) == (10.0, "arm", 14)
    assert {key: data.info.features[key] for key in FEATURES if not FEATURES[key].picture} == {
        key: feature for key, feature in FEATURES.items() if not feature.picture
    }
    for number in (1, 0, 2):
        one, written = data[number], episode(EPISODES[number], number)
        for key, array in written.items():
            if FEATURES[key].dtype != VIDEO:
                np.testing.assert_array_equal(one.values[key], array, key)
        wrist = one.values["observation.images.wrist"]
        assert (wrist.dtype, wrist.shape) == (np.uint8, (EPISODES[number], 64, 48, 3))
        seen = wrist.mean(axis=(1, 2, 3)) - written["observation.images.wrist"].mean(axis=(1, 2, 3))
        assert np.abs(seen).max() < 3  # of 8 from frame to frame
        np.testing.assert_allclose(one.values["timestamp"], np.arange(len(one)) / 10, atol=1e-6)
    assert data[0].tasks == ("reach", "reach", "grasp", "grasp")
    assert data[-1].values["index"].tolist() == [11, 12, 13]
    assert [len(one) for one in data[1:]] == [7, 3]
    with pytest.raises(IndexError):
        data[3]


def test_an_episode_is_what_a_policy_would_have_seen_and_done(folder):
    one = Dataset(folder, cameras=["observation.images.front"])[0]
    seen = one.observation(2)
    assert set(seen) == {
        "observation.state",
        "observation.points.lidar",
        "observation.images.front",
        "task",
        "timestamp",
    }
    assert (seen["task"], seen["timestamp"]) == ("grasp", pytest.approx(0.2))
    assert seen["observation.images.front"].shape == (8, 6, 3)
    actions, is_pad = one.chunk(2, 4)
    written = episode(4, 0)["action"]
    np.testing.assert_array_equal(actions, written[[2, 3, 3, 3]])
    assert (actions.dtype, is_pad.tolist()) == (np.float32, [False, False, True, True])
    with pytest.raises(InputError, match="no 'acton'; did you mean 'action'"):
        one.chunk(0, 1, "acton")
    with pytest.raises(InputError, match="expected a frame from 0 to 3, got 4"):
        one.chunk(4, 1)


def test_statistics_are_those_of_all_frames(folder):
    statistics = Dataset(folder).statistics
    whole = {key: np.concatenate([episode(n, i)[key] for i, n in enumerate(EPISODES)]) for key in FEATURES}
    for key in ("observation.state", "observation.points.lidar", "next.reward", "next.done"):
        found, array = statistics[key], whole[key].astype(np.float64)
        array = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
        for name in ("min", "max", "mean", "std"):
            np.testing.assert_allclose(found[name], getattr(array, name)(axis=0), rtol=1e-6, atol=1e-9)
        assert found["count"] == [14]
        assert (found["q01"] <= found["q99"]).all()
    picture = statistics["observation.images.front"]
    expected = whole["observation.images.front"].reshape(-1, 3) / 255
    np.testing.assert_allclose(picture["mean"].reshape(3), expected.mean(axis=0))
    assert picture["std"].shape == (3, 1, 1)
    assert "note" not in statistics


def test_files_end_where_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "DATA_MB", 0)
    monkeypatch.setattr(layout, "FILES_PER_CHUNK", 2)
    monkeypatch.setattr("perceiver.control.lerobot.films.VIDEO_MB", 0)
    monkeypatch.setattr("perceiver.control.lerobot.films.FILES_PER_CHUNK", 2)
    features = {key: FEATURES[key] for key in ("action", "observation.images.wrist")}
    with Writer(tmp_path / "set", 30, features) as writer:
        for number, length in enumerate(EPISODES):
            given = episode(length, number)
            writer.add({key: given[key] for key in features}, "go")
    files = sorted(str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("chunk-*/*"))
    assert [file for file in files if file.startswith("data")] == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
    ]
    assert "videos/observation.images.wrist/chunk-001/file-000.mp4" in files
    for number, one in enumerate(Dataset(tmp_path / "set")):
        np.testing.assert_array_equal(one.values["action"], episode(EPISODES[number], number)["action"])


def add_all(folder, episodes):
    with Writer(folder, 5, {"action": FEATURES["action"]}) as writer:
        for actions in episodes:
            writer.add({"action": actions}, "go")


def test_an_error_keeps_the_episodes_before_it(tmp_path):
    good = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match=r"episode 1: action: expected finite"):
        add_all(tmp_path / "set", [good, good * np.nan])
    assert [len(one) for one in Dataset(tmp_path / "set")] == [3]
    with pytest.raises(InputError, match=r"episode 0: action: expected finite"):
        add_all(tmp_path / "none", [good * np.nan])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_episodes_that_do_not_fit_are_refused(tmp_path):
    good = {"action": np.zeros((3, 2), np.float32)}
    bad = [
        ({}, "go", "expected at least one frame"),
        ({"acton": good["action"]}, "go", "expected the keys action, got acton"),
        ({"action": np.zeros((3, 3), np.float32)}, "go", r"action: expected \(3, 2\), got \(3, 3\)"),
        ({"action": np.zeros((3, 2), complex)}, "go", "action: expected float32, got complex128"),
        (good, "", "task: expected a text"),
        (good, ["go"], "task: expected a text, or one for each of 3 frames"),
    ]
    with Writer(tmp_path / "set", 5, {"action": FEATURES["action"]}) as writer:
        for values, task, message in bad:
            with pytest.raises(InputError, match=message):
                writer.add(values, task)
        writer.add(good, "go")
    assert len(Dataset(tmp_path / "set")) == 1
    with pytest.raises(InputError, match="exists, so it is not overwritten"):
        Writer(tmp_path / "set", 5, {})
    with pytest.raises(InputError, match="expected keys without slashes"):
        Writer(tmp_path / "other", 5, {"../a": FEATURES["action"]})
    with pytest.raises(InputError, match="'index' is made by the writer"):
        Writer(tmp_path / "other", 5, {"index": FEATURES["action"]})


def damaged(folder, tmp_path, what):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    what(copy)
    return copy


def edited(**changes):
    def edit(copy):
        path = copy / layout.INFO
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def without_rows(copy):
    path = copy / "data/chunk-000/file-000.parquet"
    parquet.write_table(parquet.ParquetFile(path).read().slice(0, 9), path)


def with_gap(copy):
    path = copy / "data/chunk-000/file-000.parquet"
    table = parquet.ParquetFile(path).read()
    place = table.schema.get_field_index("next.reward")
    parquet.write_table(table.set_column(place, "next.reward", arrow.array([None, *[1.0] * 13])), path)


def episodes_with(column, values):
    def edit(copy):
        path = copy / "meta/episodes/chunk-000/file-000.parquet"
        table = parquet.ParquetFile(path).read()
        place = table.schema.get_field_index(column)
        parquet.write_table(table.set_column(place, column, arrow.array(values)), path)

    return edit


def no_text(copy):
    path = copy / layout.TASKS
    table = parquet.ParquetFile(path).read()
    (name,) = set(table.column_names) - {"task_index"}
    wrong = arrow.array([b"\xbe"] * table.num_rows).view(arrow.string())
    parquet.write_table(table.set_column(table.schema.get_field_index(name), name, wrong), path)


def shortened(copy):
    path = copy / "videos/observation.images.wrist/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda copy: (copy / layout.INFO).unlink(), "info.json: cannot be read"),
        (edited(codebase_version="v2.1"), "codebase_version: expected 'v3.0', got 'v2.1'"),
        (edited(fps=0), "fps: expected frames a second"),
        (edited(total_episodes=4), "expected 4 episodes in order"),
        (edited(features={"a": {"dtype": "object", "shape": [1]}}), r"features\['a'\]: dtype: expected one of"),
        (edited(features={"../a": {"dtype": "bool", "shape": [1]}}), "keys without slashes"),
        (edited(data_path="../{file_index}"), "data_path: expected a path in the folder"),
        (edited(data_path="{file_index.__class__}"), "data_path: expected a path in the folder"),
        (edited(data_path="{file_index:03rp}"), "data_path: expected a path in the folder"),
        (edited(data_path="{file_index:999999999d}"), "data_path: expected a path in the folder"),
        (edited(data_path="{file_index!r}"), "data_path: expected a path in the folder"),
        (edited(data_path="{video_key}/{file_index}"), "data_path: expected a path in the folder"),
        (edited(data_path="{file_index"), "data_path: expected a path in the folder"),
        (edited(data_path=7), "data_path: expected a path in the folder"),
        (episodes_with("data/chunk_index", [0, 0, None]), "data/chunk_index: expected numbers from 0 on, got None"),
        (episodes_with("data/file_index", ["a", "b", "c"]), "data/file_index: expected numbers from 0 on, got 'a'"),
        (episodes_with("length", [7.5, 7.0, 7.0]), "length: expected numbers from 0 on, got 7.5"),
        (
            episodes_with("videos/observation.images.wrist/from_timestamp", [0.0, float("nan"), 0.0]),
            "from_timestamp: expected numbers from 0 on, got nan",
        ),
        (lambda copy: (copy / layout.TASKS).unlink(), "tasks.parquet: expected a file, got nothing"),
        (lambda copy: (copy / layout.TASKS).write_bytes(b"PAR1 but no more"), "tasks.parquet: expected a parquet file"),
        (no_text, "tasks.parquet: expected a parquet file, got ArrowInvalid: .*UTF8"),
        (without_rows, "expected 7 frames of episode 1, got 5"),
        (with_gap, "next.reward: expected a value for each frame, got 1 frames without"),
        (shortened, "file-000.mp4: expected"),
        (lambda copy: shutil.rmtree(copy / "videos"), "file-000.mp4: expected a file, got nothing"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder, tmp_path, what, message):
    with pytest.raises(InputError, match=message):
        list(Dataset(damaged(folder, tmp_path, what)))


def test_a_folder_without_statistics_is_read(folder, tmp_path):
    assert Dataset(damaged(folder, tmp_path, lambda copy: (copy / layout.STATISTICS).unlink())).statistics == {}
