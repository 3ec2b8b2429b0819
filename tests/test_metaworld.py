"""MetaWorld's tasks as one environment, and demonstrations of their experts."""

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs MetaWorld: pip install 'perceiver[metaworld]'")

from experiments.metaworld import HORIZON, Misled, figures, metaworld, model
from experiments.metaworld_arena.demonstrations import BEHIND, demonstrations
from experiments.metaworld_arena.environment import STATE, WORDINGS, WORLD, Expert, Tasks, words_of
from perceiver import InputError
from perceiver.control.demonstrations import Demonstrations
from perceiver.control.rollout import RandomPolicy, Rollout, Trajectory, rollout
from perceiver.robot import TASK

pytestmark = pytest.mark.filterwarnings("ignore:Constant")  # the experts' own, of what they ask of the arm
NAMES = ("reach-v3", "drawer-open-v3")


@pytest.fixture(scope="module")
def tasks():
    return Tasks(NAMES)


def test_a_seed_decides_on_the_whole_episode(tasks):
    first = [tasks.reset(seed=seed)[0] for seed in (4, 6, 5)]
    again = [tasks.reset(seed=seed)[0] for seed in (5, 6, 4)][::-1]
    for one, other in zip(first, [again[0], again[1], again[2]], strict=True):
        assert one.keys() == other.keys() == {STATE, WORLD, TASK}
        assert one[TASK] == other[TASK]
        assert np.array_equal(one[WORLD], other[WORLD])
    assert not np.array_equal(first[0][WORLD], first[1][WORLD])  # the same task, other places
    assert [tasks.name_of(seed) for seed in (4, 6, 5)] == ["reach-v3", "reach-v3", "drawer-open-v3"]


def test_words_say_the_task_and_the_tests_are_others(tasks):
    assert words_of("button-press-topdown-v3") == "button press topdown"
    assert not set(WORDINGS[False]) & set(WORDINGS[True])
    for seed in range(6):
        assert words_of(tasks.name_of(seed)) in tasks.reset(seed=seed)[0][TASK]


def test_experts_succeed_and_chance_does_not(tasks):
    expert = figures(tasks, rollout(tasks, Expert(tasks), range(8)))
    assert expert["success_rate"] >= 0.8
    assert expert["by_task"].keys() == set(NAMES)
    assert rollout(tasks, RandomPolicy(tasks.action_space), [1]).successes == 0


def test_the_mean_over_tasks_is_not_that_over_episodes(tasks):
    def one(seed, success):
        return Trajectory(seed, success, "", np.zeros((1, 4), np.float32), np.zeros(1))

    found = figures(tasks, Rollout([one(0, True), one(2, True), one(4, True), one(1, False)]))
    assert found["success_rate"] == 0.75
    assert found["mean_over_tasks"] == 0.5


def test_demonstrations_are_recorded_once_and_become_samples(tasks, tmp_path, monkeypatch):
    first = demonstrations(tmp_path, tasks, range(10, 12))
    monkeypatch.setattr("experiments.metaworld_arena.demonstrations._write", None)  # nothing to record with
    again = demonstrations(tmp_path, tasks, range(10, 12))
    assert len(first) == len(again) == 2
    samples = Demonstrations(again[:], model(1, 8, 1))
    assert len(samples) > 2 * BEHIND
    item = samples[3]
    assert item["targets"]["action"].shape == (HORIZON, 4)
    assert np.abs(item["targets"]["action"]).max() <= 1.0
    assert not item["targets"]["action_is_pad"].any()


def test_a_misled_policy_hears_of_the_next_task(tasks):
    heard = []

    class Listening:
        def reset(self):
            pass

        def infer(self, obs):
            heard.append(obs[TASK])
            return {"actions": np.zeros((1, 4), np.float32)}

    obs, _ = tasks.reset(seed=0)
    Misled(Listening(), tasks).infer(obs)
    assert heard == ["drawer open"]


def test_what_is_no_task_is_said():
    with pytest.raises(InputError, match="did you mean 'reach-v3'"):
        Tasks(("reech-v3",))
    with pytest.raises(InputError, match="expected at least one"):
        metaworld(tasks=())
