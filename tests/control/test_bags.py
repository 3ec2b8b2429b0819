import dataclasses
import json

import numpy as np
import pytest

from perceiver import ConfigError, InputError, cli
from perceiver.control.bags import Import, import_bags, read_import, topics_of
from perceiver.control.lerobot import Dataset
from perceiver.control.messages import Topic
from perceiver.io.images import encode_png

rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

STORE = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
SIDES = (4, 6)
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (*SIDES, 3), np.uint8)


def message(kind, /, **fields):
    return STORE.types[kind](**fields)


def header(seconds):
    stamp = message("builtin_interfaces/msg/Time", sec=int(seconds), nanosec=round(1e9 * (seconds % 1)))
    return message("std_msgs/msg/Header", stamp=stamp, frame_id="")


def joints(time, names=("b", "a"), **changes):
    """Joint a is at `time`, joint b at -time; the driver lists them in its own order."""
    there = {"a": time, "b": -time, "c": 9.0}
    numbers = np.array([there[name] for name in names])
    given = {
        "header": header(time + 0.02),
        "name": list(names),
        "position": numbers,
        "velocity": numbers,
        "effort": numbers,
    }
    return message("sensor_msgs/msg/JointState", **given | changes)


def camera(time, encoding="rgb8", extra=2, **changes):
    """PICTURE, its first pixel as bright as a hundred times the time, rows longer than they need to be."""
    picture = PICTURE.copy()
    picture[0, 0] = round(100 * time)
    pixels = {"rgb8": picture, "bgr8": picture[..., ::-1], "mono8": picture[..., :1]}[encoding]
    pixels = pixels.reshape(SIDES[0], -1)
    rows = np.pad(pixels, [(0, 0), (0, extra)], constant_values=77)
    given = {"height": SIDES[0], "width": SIDES[1], "encoding": encoding, "is_bigendian": 0, "step": rows.shape[1]}
    return message("sensor_msgs/msg/Image", header=header(time), data=rows.ravel(), **given | changes)


def cloud(time, count=3):
    """Points (time, n, 0) of rising number, with an intensity behind a gap, and one that is not finite."""
    kind = np.dtype(
        {
            "names": ["x", "y", "z", "intensity"],
            "formats": ["<f4"] * 3 + ["<u2"],
            "offsets": [0, 4, 8, 16],
            "itemsize": 20,
        }
    )
    points = np.zeros(count + 1, kind)
    points["x"], points["y"], points["intensity"] = time, np.arange(count + 1), 7
    points["x"][count] = np.nan
    field = [("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("intensity", 16, 4)]
    fields = [message("sensor_msgs/msg/PointField", name=n, offset=o, datatype=t, count=1) for n, o, t in field]
    given = {"height": 1, "width": count + 1, "is_bigendian": False, "point_step": 20, "row_step": 20 * (count + 1)}
    return message(
        "sensor_msgs/msg/PointCloud2",
        header=header(time),
        fields=fields,
        data=points.view(np.uint8),
        is_dense=False,
        **given,
    )


def scan(time):
    ranges = np.array([time, np.inf, np.nan], np.float32)
    numbers = dict.fromkeys(
        ("angle_min", "angle_max", "angle_increment", "time_increment", "scan_time", "range_min"), 0.0
    )
    given = {"header": header(time), "range_max": 30.0, "ranges": ranges, "intensities": ranges}
    return message("sensor_msgs/msg/LaserScan", **numbers, **given)


def speed(time):
    vectors = [message("geometry_msgs/msg/Vector3", x=x, y=0.0, z=z) for x, z in ((time, 5.0), (0.0, -time))]
    return message("geometry_msgs/msg/Twist", linear=vectors[0], angular=vectors[1])


def words(time):
    return message("std_msgs/msg/String", data="go" if time < 1.0 else "come back")


def small(time):
    data = np.frombuffer(encode_png(PICTURE), np.uint8)
    return message("sensor_msgs/msg/CompressedImage", header=header(time), format="png", data=data)


TICKS = {
    "/joint_states": (joints, np.arange(0, 2, 0.02)),
    "/camera/image_raw": (camera, np.arange(0.05, 2, 0.1)),
    "/camera/compressed": (small, np.arange(0.05, 2, 0.1)),
    "/lidar/points": (cloud, np.arange(0.0, 2, 0.1)),
    "/scan": (scan, np.arange(0.0, 2, 0.25)),
    "/cmd_vel": (speed, np.arange(0.03, 2, 0.05)),
    "/instruction": (words, np.array([0.0, 1.0])),
}


def write(folder, ticks, plugin="MCAP"):
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[plugin]) as writer:
        for topic, (make, times) in ticks.items():
            kind = make(0.0).__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for time in times.tolist():
                writer.write(connection, round(1e9 * (100 + time)), STORE.serialize_cdr(make(time), kind))
    return folder


HOW = Import(
    rate=10.0,
    topics={
        "observation.state": Topic("/joint_states", ("position",), names=("a", "b")),
        "observation.images.front": Topic("/camera/image_raw"),
        "observation.points.lidar": Topic("/lidar/points", ("x", "y", "intensity"), budget=5),
        "observation.ranges": Topic("/scan"),
        "action": Topic("/cmd_vel", ("linear.x", "angular.z"), names=("forward", "turn")),
        "task": Topic("/instruction", ("data",)),
    },
    robot="wheels",
)
BARE = Import(5.0, {key: HOW.topics[key] for key in ("observation.state", "action")}, task="drive")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write(tmp_path_factory.mktemp("bags") / "one", TICKS)


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
def test_a_recording_becomes_frames_that_know_no_future(plugin, tmp_path):
    bag = write(tmp_path / "bag", TICKS, plugin)
    path = next(bag.glob("*.mcap")) if plugin == "MCAP" else bag  # the file itself will do
    written = import_bags([path], tmp_path / "data", HOW)
    data = Dataset(tmp_path / "data")
    (episode,) = data[:]
    assert (written.episodes, written.frames) == (1, len(episode))
    assert data.info.robot == "wheels"
    assert data.info.features["action"].names == ("forward", "turn")
    # from 0.1 s on, when the camera has spoken, until 1.9 s; the last command is at 1.98 s
    times = 0.1 + 0.1 * np.arange(len(episode))
    assert len(episode) == 19
    np.testing.assert_allclose(episode.values["observation.state"], np.stack([times, -times], axis=1), atol=1e-5)
    front = episode.values["observation.images.front"]
    np.testing.assert_array_equal(front[:, 0, 0, 0], np.round(100 * (times - 0.05)))
    np.testing.assert_array_equal(front[3, 1:], PICTURE[1:])
    lidar = episode.values["observation.points.lidar"]
    assert lidar.shape == (19, 5, 3)
    np.testing.assert_allclose(lidar[:, :, 0], np.repeat(times[:, None], 5, 1), atol=1e-5)
    np.testing.assert_array_equal(lidar[0, :, 1], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(lidar[..., 2], 7)
    ranges = episode.values["observation.ranges"]
    np.testing.assert_allclose(ranges[:, 0], 0.25 * np.floor(times / 0.25 + 1e-6), atol=1e-5)
    np.testing.assert_array_equal(ranges[:, 1:], 30.0)
    commanded = episode.values["action"]
    assert ((commanded[:, 0] >= times - 1e-5) & (commanded[:, 0] < times + 0.05)).all()
    np.testing.assert_allclose(commanded[:, 1], -commanded[:, 0])
    assert episode.tasks == ("go",) * 9 + ("come back",) * 10


def test_a_topic_that_falls_silent_ends_the_episode(tmp_path):
    quiet = np.concatenate([np.arange(0, 1, 0.02), np.arange(3, 4, 0.02)])
    commands = np.arange(0, 4, 0.05)
    bag = write(tmp_path / "bag", {"/joint_states": (joints, quiet), "/cmd_vel": (speed, commands)})
    written = import_bags([bag, bag], tmp_path / "data", dataclasses.replace(BARE, gap=0.21))
    data = Dataset(tmp_path / "data")
    assert written.episodes == 4
    assert data[0].tasks[0] == "drive"
    state = [episode.values["observation.state"][:, 0] for episode in data[:2]]
    assert state[0].max() < 1.0
    assert state[1].min() >= 3.0
    assert len(data[0]) == 6  # 0.0 to 1.0 s; at 1.2 s the last word is older than the gap


def test_times_in_headers_may_count(bag, tmp_path):
    topics = BARE.topics | {"observation.state": dataclasses.replace(HOW.topics["observation.state"], stamped=True)}
    with pytest.raises(
        InputError, match="expected a time at which all topics speak"
    ):  # the headers say 0, the recorder 100 s
        import_bags([bag], tmp_path / "data", dataclasses.replace(BARE, topics=topics))
    assert not (tmp_path / "data").exists()
    topics = topics | {"action": Topic("/joint_states", ("velocity",), stamped=True)}
    import_bags([bag], tmp_path / "data", dataclasses.replace(BARE, topics=topics))
    state = Dataset(tmp_path / "data")[0].values["observation.state"]
    np.testing.assert_allclose(state[:, 0], 0.2 * np.arange(len(state)), atol=1e-5)


def test_pictures_of_every_encoding(tmp_path):
    for encoding in ("rgb8", "bgr8", "mono8"):
        ticks = TICKS | {"/camera/image_raw": (lambda time, e=encoding: camera(time, e), np.arange(0, 2, 0.1))}
        bag = write(tmp_path / encoding, {name: ticks[name] for name in ("/camera/image_raw", "/cmd_vel")})
        topics = {"observation.images.front": Topic("/camera/image_raw"), "action": BARE.topics["action"]}
        import_bags([bag], tmp_path / f"data-{encoding}", dataclasses.replace(BARE, topics=topics))
        front = Dataset(tmp_path / f"data-{encoding}")[0].values["observation.images.front"]
        expected = np.repeat(PICTURE[..., :1], 3, axis=2) if encoding == "mono8" else PICTURE
        np.testing.assert_array_equal(front[0, 1:], expected[1:])


def test_compressed_pictures(bag, tmp_path):
    topics = {"observation.images.front": Topic("/camera/compressed"), "action": BARE.topics["action"]}
    import_bags([bag], tmp_path / "data", dataclasses.replace(BARE, topics=topics))
    np.testing.assert_array_equal(Dataset(tmp_path / "data")[0].values["observation.images.front"][0], PICTURE)


@pytest.mark.parametrize(
    ("key", "topic", "message"),
    [
        (
            "observation.state",
            Topic("/joint_state", ("position",)),
            r"no topic '/joint_state'; did you mean '/joint_states'",
        ),
        ("observation.state", Topic("/joint_states"), "/joint_states: fields: expected what to take of sensor_msgs"),
        (
            "observation.state",
            Topic("/joint_states", ("positions",)),
            "positions: no field 'positions'; known: header, name",
        ),
        ("observation.state", Topic("/joint_states", ("position.__class__",)), "no field '__class__'"),
        ("observation.state", Topic("/joint_states", ("name",)), "name: expected numbers, got"),
        (
            "observation.state",
            Topic("/joint_states", ("position",), names=("a", "d")),
            "position: expected a, d, got 2 numbers of b, a",
        ),
        ("observation.state", Topic("/cmd_vel", ("linear.x",), stamped=True), "expected a header with a stamp"),
        (
            "observation.text",
            Topic("/instruction", ("data",)),
            "observation.text: expected arrays of one shape, got text",
        ),
        ("observation.points.lidar", Topic("/lidar/points", ("x",)), "a cloud needs a budget"),
        (
            "observation.points.lidar",
            Topic("/lidar/points", ("ring",), budget=3),
            "expected numbers called 'ring', got intensity, x",
        ),
    ],
)
def test_what_a_recording_lacks_is_named(bag, tmp_path, key, topic, message):
    how = dataclasses.replace(BARE, topics={key: topic, "action": BARE.topics["action"]})
    with pytest.raises(InputError, match=message) as refused:
        import_bags([bag], tmp_path / "data", how)
    assert str(bag) in str(refused.value)
    assert not (tmp_path / "data").exists()


def test_messages_that_are_not_what_they_say_are_refused(tmp_path):
    for number, (make, message) in enumerate(
        [
            (lambda time: camera(time, encoding="rgb8", height=5), "expected 5 rows of 20 bytes for 6 pixels, got 80"),
            (lambda time: camera(time, width=7), "for 7 pixels"),
            (lambda time: camera(time, extra=0, step=0), "rows of 0 bytes"),
        ]
    ):
        bag = write(tmp_path / str(number), {"/camera": (make, np.arange(0, 1, 0.1)), "/cmd_vel": TICKS["/cmd_vel"]})
        topics = {"observation.images.front": Topic("/camera"), "action": BARE.topics["action"]}
        with pytest.raises(InputError, match=f"/camera: .*{message}"):
            import_bags([bag], tmp_path / "data", dataclasses.replace(BARE, topics=topics))


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "cut.mcap").write_bytes(b"\x89MCAP0\r\n cut")
    (tmp_path / "empty").mkdir()
    for name in ("cut.mcap", "empty", "nowhere"):
        with pytest.raises(InputError, match=f"{name}: expected a recording of ROS"):
            topics_of(tmp_path / name)


def test_an_import_that_cannot_be_is_refused():
    for changes, message in [
        ({"rate": 0.0}, "Import.rate: expected a number above 0"),
        ({"topics": HOW.topics | {"state": Topic("/x")}}, "Import.topics: expected observation.…, action or task"),
        ({"topics": {"action": Topic("/x")}}, "expected an observation and an action"),
        ({"task": "go"}, "expected either a text, or a topic for it"),
    ]:
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(HOW, **changes)
    with pytest.raises(ConfigError, match="a name that begins with /"):
        Topic("joint_states")


def test_the_command_shows_topics_and_imports(bag, tmp_path, capsys):
    cli.main(["import", str(bag)])
    told = capsys.readouterr().out
    assert "/joint_states" in told
    assert "sensor_msgs/msg/JointState" in told
    mapping = {
        "type": "Import",
        "rate": 5,
        "task": "drive",
        "topics": {
            "observation.state": {
                "type": "Topic",
                "topic": "/joint_states",
                "fields": ["position"],
                "names": ["a", "b"],
            },
            "action": {"type": "Topic", "topic": "/cmd_vel", "fields": ["linear.x", "angular.z"]},
        },
    }
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    assert read_import(tmp_path / "mapping.json").topics["action"].fields == ("linear.x", "angular.z")
    cli.main(
        ["import", str(bag), str(bag), "--mapping", str(tmp_path / "mapping.json"), "--out", str(tmp_path / "data")]
    )
    assert "2 episodes, 20 frames" in capsys.readouterr().out
