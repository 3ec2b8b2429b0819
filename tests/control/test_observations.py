import json

import numpy as np
import pytest

import perceiver as p
from perceiver import ConfigError, InputError, Robot, Sensor
from perceiver.control.observations import Observations
from perceiver.inference import ask
from perceiver.saving import load, read_folder, write_folder
from tests.models import NARROW, noisy

SENSORS = {
    "state": Sensor("observation.state"),
    "camera": Sensor("observation.images.front", max_age=0.25),
    "lidar": Sensor("observation.points.top"),
    "mic": Sensor("observation.audio.left"),
    "text": Sensor("task", max_age=100.0),
}


def config(**changes):
    inputs = {
        "state": p.State(2, history=3, mean=(1.0, 2.0), std=(1.0, 0.5)),
        "camera": p.Image((4, 6, 3), patch=2, position=p.Fourier(2)),
        "lidar": p.Points(5, (-1.0,) * 3, (1.0,) * 3, position=NARROW),
        "mic": p.Waveform(16, sample_rate=8000, patch=8, position=p.Fourier(2)),
        "text": p.Bytes(8, width=8),
    }
    given = {"inputs": inputs, "encoder": p.Encoder(2, 8, 1), "outputs": {"action": p.Chunk(3, 2)}}
    return p.PerceiverConfig(**given, **{"robot": Robot(10.0, SENSORS), **changes})


def observation(number=0, **changes):
    given = {
        "observation.state": np.array([number, -number], np.float32),
        "observation.images.front": np.full((4, 6, 3), number, np.uint8),
        "observation.points.top": np.full((3, 3), number / 10, np.float32),
        "observation.audio.left": np.full(16, number / 10, np.float32),
        "task": "go",
    }
    return given | changes


def states(given):
    return given.inputs["state"][0, :, 0].tolist(), given.masks["state"][0].tolist()


def test_a_history_has_the_newest_last_and_masks_what_has_not_been():
    seen = Observations(config())
    seen.add(observation(1))
    assert states(seen.given()) == ([0, 0, 1], [False, False, True])
    for number in (2, 3, 4):
        seen.add(observation(number))
    given = seen.given()
    assert states(given) == ([2, 3, 4], [True] * 3)
    assert given.absent == ()
    assert given.inputs["camera"].shape == (1, 4, 6, 3)
    assert given.masks["lidar"].tolist() == [[True, True, True, False, False]]
    seen.reset()
    assert set(seen.given().absent) == set(SENSORS)
    seen.add(observation(5))
    assert states(seen.given()) == ([0, 0, 5], [False, False, True])


def test_a_single_number_is_a_vector_of_one():
    alone = {"inputs": {"height": p.State(1)}, "robot": Robot(10.0, {"height": Sensor("observation.height")})}
    for value in (np.float32(3.0), np.float32([3.0])):  # LeRobot's folders have the first
        seen = Observations(p.PerceiverConfig(**alone, encoder=p.Encoder(2, 8, 1), outputs={"action": p.Chunk(3, 2)}))
        seen.add({"observation.height": value})
        assert seen.given().inputs["height"].tolist() == [[[3.0]]]


def test_an_old_reading_is_absent_and_its_numbers_are_gone():
    seen = Observations(config())
    seen.add(observation(7))
    silent = {"task": "go"}
    for step, absent in enumerate([(), (), ("mic", "lidar"), ("mic", "lidar", "camera", "state")]):
        if step:
            seen.add(silent)
        assert set(seen.given().absent) == set(absent), step
    given = seen.given()
    assert not given.inputs["camera"].any()
    assert not given.inputs["state"].any()


def test_a_reading_stands_where_its_own_time_says():
    seen = Observations(config())
    seen.add(observation(1, timestamp=10.0))
    seen.add(observation(2, timestamp=10.1))
    late = observation(3, timestamp=10.2) | {"observation.state.timestamp": np.float64(10.11)}
    seen.add(late)
    # the third came just after the second, so it stands in its place, and the present has none
    assert states(seen.given()) == ([1, 3, 0], [True, True, False])
    seen.add(late | {"timestamp": 10.3})  # the same reading again is nothing new
    assert states(seen.given()) == ([3, 0, 0], [True, False, False])


def test_what_does_not_fit_names_its_key_and_changes_nothing():
    seen = Observations(config())
    seen.add(observation(1, timestamp=1.0))
    before = seen.given()
    bad = [
        ({"observation.state": np.zeros(3, np.float32)}, r"observation\['observation.state'\]: expected shape \(2,\)"),
        ({"observation.state": np.array([np.nan, 0], np.float32)}, r"'observation.state'\]: expected finite numbers"),
        (
            {"observation.images.front": np.zeros((4, 6, 3), np.float32)},
            r"'observation.images.front'\]: expected .*unsig",
        ),
        ({"observation.points.top": "cloud.pcd"}, r"'observation.points.top'\]: expected shape"),
        ({"observation.audio.left": np.zeros((2, 8), np.float32)}, r"'observation.audio.left'\]: expected shape"),
        ({"task": "a task of many words"}, r"\['task'\]: expected 1 to 8 tokens, got 20"),
        ({"task": 5}, r"\['task'\]: expected a string, got int"),
        (
            {"observation.sate": np.zeros(2)},
            r"'observation.sate'\]: no such sensor; did you mean 'observation.state'\?",
        ),
        ({"timestamp": 0.5}, r"'timestamp'\]: expected 1.0 s, the last one, or later, got 0.5; reset\(\)"),
        ({"timestamp": np.nan}, r"'timestamp'\]: expected finite seconds"),
        ({"observation.state.timestamp": 9.0}, r"'observation.state'\]: expected a time up to the present, 1.1 s"),
    ]
    for changes, message in bad:
        with pytest.raises(InputError, match=message):
            seen.add({"timestamp": 1.1, **observation(2), **changes})
        after = seen.given()
        assert all((after.inputs[name] == raw).all() for name, raw in before.inputs.items())


def test_sensors_that_a_model_has_no_use_for_may_be_named():
    seen = Observations(config(robot=Robot(10.0, SENSORS, ignored=("observation.images.rear",))))
    seen.add(observation(1) | {"observation.images.rear": np.zeros(3), "observation.images.rear.timestamp": 1.0})
    seen.add(observation(2) | {"next.reward": 1.0})


def test_what_is_absent_reaches_no_answer():
    model = noisy(config())
    seen = Observations(config())
    seen.add({name: value for name, value in observation(3).items() if name != "observation.images.front"})
    given = seen.given()
    spoilt = given.inputs | {"camera": np.full((1, 4, 6, 3), 200, np.uint8)}
    answers = [ask(model, inputs, given.masks)["action"] for inputs in (given.inputs, spoilt)]
    np.testing.assert_array_equal(*answers)


def test_the_loop_is_saved_as_preprocessing_and_checked(tmp_path):
    folder = noisy(config()).save(tmp_path / "policy")
    assert '"observation.images.front"' in (folder / "preprocessing.json").read_text()
    assert "robot" not in (folder / "config.json").read_text()
    assert load(folder).config == config()


def test_a_folder_that_was_written_before_there_were_robots_still_loads(tmp_path):
    model = noisy(config(robot=None))
    files = read_folder(model.save(tmp_path / "model"))
    host = json.loads(files["preprocessing.json"])
    host.pop("robot", None)
    older = write_folder(tmp_path / "older", files | {"preprocessing.json": json.dumps(host).encode()})
    assert load(older).config == config(robot=None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sensor("state"), "expected 'task' or 'observation.' and a name, got 'state'"),
        (lambda: Sensor("task", max_age=-1.0), "max_age: expected seconds, 0 or more"),
        (lambda: Robot(0.0, SENSORS), "rate: expected control steps a second, above 0"),
        (lambda: Robot(1.0, {}), "sensors: expected at least one"),
        (lambda: Robot(1.0, {"a": Sensor("task"), "b": Sensor("task")}), "each with a key of its own"),
        (lambda: config(robot=Robot(1.0, {"stat": Sensor("task")})), "no such input; did you mean 'state'"),
        (lambda: config(robot=Robot(1.0, SENSORS, action="act")), "no output 'act'; did you mean 'action'"),
        (lambda: Observations(config(robot=None)), "expected a Robot"),
    ],
)
def test_a_loop_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
