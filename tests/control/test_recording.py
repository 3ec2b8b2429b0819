import types

import gymnasium
import numpy as np
import pytest

import perceiver as p
from perceiver import ConfigError, InputError, Robot, Sensor
from perceiver.control.actions import action_objective
from perceiver.control.demonstrations import Demonstrations, explained, mean_and_deviation
from perceiver.control.lerobot import IMAGE, VIDEO, Dataset
from perceiver.control.recording import Disturbed, Drift, Recorder, any_success, recorded_once
from perceiver.control.rollout import RandomPolicy, rollout
from perceiver.pipeline import in_batches
from tests.models import noisy


class Line(gymnasium.Env):
    """A point on a line, seen by a camera, that is to leave it within four steps."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict(
        {
            "state": gymnasium.spaces.Box(-9, 9, (2,), np.float32),
            "top": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def seen(self):
        return {"state": self.at.astype(np.float32), "top": np.full((8, 8, 3), 20 * self.steps, np.uint8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.normal(size=2), 0
        return self.seen(), {}

    def step(self, action):
        self.at, self.steps = self.at + action, self.steps + 1
        won = bool(abs(self.at[0]) > 1)
        return self.seen(), float(won), won, self.steps == 4, {"is_success": won}


def recorded(folder, episodes=6, **how):
    with Recorder(Line(), folder, 10, "leave the line", **how) as environment:
        done = rollout(environment, RandomPolicy(environment.action_space), range(episodes))
        return done, environment.episodes


def test_what_happened_is_what_is_recorded(tmp_path):
    done, written = recorded(tmp_path / "line", film=False)
    data = Dataset(tmp_path / "line")
    assert written == len(data) == 6
    assert data.info.features["observation.images.top"].dtype == IMAGE
    for trajectory, one in zip(done.trajectories, data, strict=True):
        np.testing.assert_array_equal(one.values["action"], trajectory.actions)
        np.testing.assert_allclose(one.values["next.reward"], trajectory.rewards)
        assert one.values["next.done"].tolist() == [False] * (len(trajectory) - 1) + [True]
        assert one.values["next.success"].any() == trajectory.success
        moved = np.diff(one.values["observation.state"], axis=0)
        np.testing.assert_allclose(moved, trajectory.actions[:-1], atol=1e-6)
        assert one.values["observation.images.top"][:, 0, 0, 0].tolist() == [20 * n for n in range(len(trajectory))]
        assert set(one.tasks) == {"leave the line"}


def test_what_is_not_wanted_or_not_whole_is_left_out(tmp_path):
    done, written = recorded(tmp_path / "line", keep=any_success)
    assert written == done.successes < 6
    data = Dataset(tmp_path / "line")
    assert data.info.features["observation.images.top"].dtype == VIDEO
    assert all(one.values["next.success"][-1] for one in data)
    with Recorder(Line(), tmp_path / "cut", 10, "go") as environment:
        environment.reset(seed=0)
        environment.step(np.zeros(2, np.float32))
        environment.reset(seed=1)
    assert not (tmp_path / "cut").exists()


def test_a_recording_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="rate: expected control steps"):
        Recorder(Line(), tmp_path / "a", 0.0)
    with pytest.raises(InputError, match="exists, so it is not overwritten"):
        Recorder(Line(), tmp_path, 10.0)
    with pytest.raises(InputError, match="step: expected reset"):
        Recorder(Line(), tmp_path / "a", 10.0).step(np.zeros(2))
    with pytest.raises(InputError, match="task: expected a text"):
        rollout(Recorder(Line(), tmp_path / "a", 10.0), RandomPolicy(Line.action_space), [0])
    ragged = Recorder(Line(), tmp_path / "b", 10.0, "go", observe=lambda obs: {f"observation.{id(obs)}": obs["state"]})
    with pytest.raises(InputError, match="expected the same keys in every frame, got others in frame 1"):
        rollout(ragged, RandomPolicy(Line.action_space), [0])


@pytest.mark.slow
def test_recordings_are_what_a_policy_learns_from(tmp_path):
    recorded(tmp_path / "line", film=False)
    data = Dataset(tmp_path / "line")
    mean, std = mean_and_deviation(data, "observation.state")
    inputs = {"state": p.State(2, history=2, mean=mean, std=std), "text": p.Bytes(16, width=8)}
    ignored = ("observation.images.top",)
    robot = Robot(10.0, {"state": Sensor("observation.state"), "text": Sensor("task")}, ignored=ignored)
    config = p.PerceiverConfig(inputs, p.Encoder(2, 8, 1), {"action": p.Chunk(3, 2)}, robot=robot)
    samples = Demonstrations(data[:], config)
    assert len(samples) == data.info.frames
    first, last = samples[0], samples[len(data[0]) - 1]
    states = data[0].values["observation.state"]
    assert first["masks"]["state"].tolist() == [False, True]
    np.testing.assert_array_equal(last["inputs"]["state"], states[-2:])
    assert last["targets"]["action_is_pad"].tolist() == [False, True, True]
    np.testing.assert_array_equal(last["targets"]["action"][0], data[0].values["action"][-1])
    batch, _ = next(iter(in_batches([samples[n] for n in range(4)], 4)))
    loss, _ = action_objective()(noisy(config), batch, None)
    assert np.isfinite(loss)
    with pytest.raises(ConfigError, match="expected a Robot"):
        Demonstrations(data[:], p.PerceiverConfig(inputs, config.encoder, config.outputs))
    with pytest.raises(InputError, match="expected at least one frame"):
        Demonstrations([], config)
    with pytest.raises(InputError, match=r"expected 'observation\.position', got"):
        mean_and_deviation(data, "observation.position")


def test_a_disturbed_demonstration_has_what_was_told_and_where_noise_led(tmp_path):
    def drift(seed):
        return Drift(np.random.default_rng(seed), 2, (0.5,), 0.8)

    with Recorder(Disturbed(Line(), drift), tmp_path / "line", 10, "leave the line") as environment:
        rollout(environment, RandomPolicy(environment.action_space), range(3))
    for seed, one in enumerate(Dataset(tmp_path / "line")):
        done = np.diff(one.values["observation.state"], axis=0) - one.values["action"][:-1]
        noise = drift(seed)
        np.testing.assert_allclose(done, np.array([noise.next() for _ in done]).reshape(-1, 2), atol=1e-6)


def test_noise_has_the_deviation_it_says_and_lasts():
    drift = Drift(np.random.default_rng(0), 1, (0.3,), 0.8)
    drawn = np.array([drift.next()[0] for _ in range(20_000)])
    assert drawn.std() == pytest.approx(0.3, rel=0.05)
    assert np.corrcoef(drawn[:-1], drawn[1:])[0, 1] == pytest.approx(0.8, abs=0.02)


def test_a_folder_is_recorded_once_and_an_interrupt_leaves_nothing(tmp_path):
    def interrupted(new):
        new.mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded_once(tmp_path / "shown" / "one", interrupted)
    assert not list((tmp_path / "shown").iterdir())
    place = recorded_once(tmp_path / "shown" / "one", lambda new: new.mkdir())
    assert place.is_dir()
    assert recorded_once(place, interrupted) == place


def test_what_is_explained_is_nothing_for_the_median_and_all_for_the_actions(monkeypatch):
    held = [{"targets": {"action": np.float32([[n]]), "action_is_pad": np.zeros(1, bool)}} for n in (0, 1, 5)]
    model = types.SimpleNamespace(config=types.SimpleNamespace(robot=Robot(10, {"state": Sensor("observation.state")})))

    def answering(answer):
        monkeypatch.setattr("perceiver.control.demonstrations.act_all", lambda _, samples, *how: answer(samples))
        return explained(model, held)["explained"]

    assert answering(lambda samples: np.ones((3, 1, 1))) == pytest.approx(0.0, abs=1e-6)
    assert answering(lambda samples: np.stack([one["targets"]["action"] for one in samples])) == 1.0
    assert answering(lambda samples: np.full((3, 1, 1), 9.0)) < 0.0
