"""A folder that lerobot 0.4.4 wrote, from the numbers below; and episodes of a real robot there and back."""

from pathlib import Path

import numpy as np
import pytest

from data import bridge_robot
from perceiver.control.lerobot import IMAGE, VIDEO, Dataset, Feature, Writer

WRITTEN = Path(__file__).parents[2] / "goldens" / "lerobot" / "written_by_0.4.4"


def test_what_lerobot_wrote_is_read():
    data = Dataset(WRITTEN)
    assert (data.info.rate, data.info.frames, data.info.cameras) == (
        10.0,
        10,
        ("observation.images.front", "observation.images.wrist"),
    )
    for number, length in enumerate((4, 6)):
        rng, one = np.random.default_rng(number), data[number]
        assert one.tasks == ("reach" if number else "grasp",) * length
        for step in range(length):
            seen = one.observation(step)
            np.testing.assert_array_equal(seen["observation.state"], rng.normal(size=3).astype(np.float32))
            points = rng.normal(size=(5, 4)).astype(np.float32)
            np.testing.assert_array_equal(seen["observation.points.lidar"], points)
            front = rng.integers(0, 256, (8, 6, 3), np.uint8)
            np.testing.assert_array_equal(seen["observation.images.front"], front)
            wrist = seen["observation.images.wrist"]
            assert abs(wrist.mean() - (40 + 30 * number + 8 * step)) < 3
            np.testing.assert_array_equal(one.values["action"][step], rng.normal(size=2).astype(np.float32))
    states = np.concatenate([one.values["observation.state"] for one in data])
    np.testing.assert_allclose(data.statistics["observation.state"]["mean"], states.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(data.statistics["observation.state"]["std"], states.std(axis=0), rtol=1e-5)


def test_statistics_are_as_lerobot_counts_them(tmp_path):
    data = Dataset(WRITTEN)
    features = {key: f for key, f in data.info.features.items() if key.startswith(("observation", "action"))}
    with Writer(tmp_path / "again", data.info.rate, features) as writer:
        for one in data:
            writer.add({key: one.values[key] for key in features}, one.tasks[0])
    found = Dataset(tmp_path / "again").statistics
    assert found.keys() == data.statistics.keys()
    for key, entry in data.statistics.items():
        for name, array in entry.items():
            assert found[key][name].shape == array.shape, (key, name)
            film = key == "observation.images.wrist"  # lerobot's are of the frames before they were compressed
            if name == "std" and "images" in key:  # lerobot squares bytes as bytes, which overflow
                continue
            if not name.startswith("q"):  # which it takes from histograms
                np.testing.assert_allclose(found[key][name], array, rtol=1e-4, atol=0.02 if film else 1e-6)


@pytest.mark.parametrize("kind", [IMAGE, VIDEO])
def test_episodes_of_a_real_robot_there_and_back(data_root, tmp_path, kind):
    episodes = bridge_robot.load(data_root)["train"][:3]
    camera = Feature(kind, episodes[0].images.shape[2:])
    features = {
        "observation.state": Feature("float32", (7,), ("x", "y", "z", "roll", "pitch", "yaw", "gripper")),
        **{f"observation.images.{name}": camera for name in bridge_robot.CAMERAS},
        "action": Feature("float32", (7,)),
    }
    with Writer(tmp_path / "bridge", 5, features, robot="widowx") as writer:
        for one in episodes:
            images = dict(zip(features, [None, *one.images], strict=False))
            writer.add(images | {"observation.state": one.state, "action": one.action}, one.instruction)
    data = Dataset(tmp_path / "bridge")
    for number, (one, back) in enumerate(zip(episodes, data, strict=True)):
        np.testing.assert_array_equal(back.values["observation.state"], one.state)
        np.testing.assert_array_equal(back.values["action"], one.action)
        assert back.tasks == (one.instruction,) * len(one.state), number
        for camera_number, name in enumerate(bridge_robot.CAMERAS):
            frames, written = back.values[f"observation.images.{name}"], one.images[camera_number]
            if kind == IMAGE:
                np.testing.assert_array_equal(frames, written)
            else:  # 64 x 64 with half the colours: hard to tell apart
                error = np.square(frames.astype(float) - written).mean()
                assert error < 60, f"{error} in camera {name}"
