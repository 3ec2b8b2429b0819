"""Closed loop: which seeds, how many actions of a chunk, what is counted."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from perceiver import InputError
from perceiver.control.chunking import Receding
from perceiver.control.rollout import RandomPolicy, Rollout, Trajectory, Without, is_success, rollout, wilson

SPACE = SimpleNamespace(shape=(1,), low=np.array([-1.0]), high=np.array([1.0]))


class Line:
    """Walk to 3 along a line, from a start that the seed says; the walk ends at 3, or is cut off after 6 steps."""

    action_space = SPACE

    def reset(self, seed):
        self.at, self.steps = float(np.random.default_rng(seed).uniform(0.0, 0.5)), 0
        return {"observation.state": np.float32([self.at])}, {}

    def step(self, action):
        self.at += float(action[0])
        self.steps += 1
        there = self.at >= 3.0
        observation = {"observation.state": np.float32([self.at])}
        return observation, float(there), there, self.steps >= 6, {"is_success": there}


@dataclasses.dataclass
class Chunks:
    """Gives rows 1, 0, 0, … and counts what it is asked."""

    horizon: int
    asked: int = 0
    resets: int = 0

    def reset(self):
        self.resets += 1

    def observe(self, obs):
        pass

    def infer(self, obs):
        self.asked += 1
        actions = np.zeros((self.horizon, 1), np.float32)
        actions[0] = 1.0
        return {"actions": actions, "timing": {}}


def test_a_policy_is_asked_in_every_step_unless_it_does_more_of_a_chunk_itself():
    policy = Chunks(3)
    every = rollout(Line(), policy, [0, 1])
    assert (every.successes, policy.asked, policy.resets) == (2, 6, 2)
    policy = Chunks(3)
    second = rollout(Line(), Receding(policy, 2), [0])
    assert second.trajectories[0].actions[:, 0].tolist() == [1, 0, 1, 0, 1]
    assert policy.asked == 3


def test_the_same_seeds_give_the_same_episodes_and_others_do_not():
    policy = RandomPolicy(SPACE)
    one, turned = (rollout(Line(), policy, seeds).trajectories for seeds in ([4, 7], [7, 4]))
    pairs = list(zip(one, turned[::-1], strict=True))
    assert all(np.array_equal(a.actions, b.actions) and np.array_equal(a.rewards, b.rewards) for a, b in pairs)
    assert [t.seed for t in turned] == [7, 4]
    assert not np.array_equal(one[0].actions[0], one[1].actions[0])
    other = rollout(Line(), RandomPolicy(SPACE, seed=1), [4]).trajectories
    assert not np.array_equal(one[0].actions[0], other[0].actions[0])
    environment = Line()

    def starts(seeds):
        watched = rollout(environment, Chunks(1), seeds, watch=lambda: [environment.at])
        return [float(t.places[0, 0]) for t in watched.trajectories]

    assert starts([4, 7]) == starts([4, 7])
    assert starts([4, 7])[0] != starts([5, 7])[0]


def test_failed_sensors_say_nothing():
    seen = []
    policy = SimpleNamespace(reset=lambda: seen.append("reset"), infer=lambda obs: seen.append(obs) or {"actions": [1]})
    less = Without(policy, ["observation.state", "task"])
    less.reset()
    assert less.infer({"observation.state": 1, "task": "go", "observation.audio.ear": 2}) == {"actions": [1]}
    assert seen == ["reset", {"observation.audio.ear": 2}]


def test_figures_are_those_of_the_episodes():
    rows = [(True, [0.0, 1.0]), (False, [-0.5]), (False, [0.0, 0.0, 0.0]), (True, [1.0, 1.0])]
    episodes = [
        Trajectory(i, won, "won" if won else "lost", np.zeros((len(r), 1), np.float32), np.array(r))
        for i, (won, r) in enumerate(rows)
    ]
    figures = Rollout(episodes).figures()
    assert figures["success_rate"] == 0.5
    assert figures["episodes"] == 4
    assert figures["mean_return"] == pytest.approx(2.5 / 4)
    assert figures["mean_length"] == 2.0
    assert figures["outcomes"] == {"lost": 2, "won": 2}
    assert figures["interval_95"]["success_rate"] == pytest.approx({"low": 0.1500, "high": 0.8500}, abs=1e-4)


def test_the_interval_is_wilsons():
    z, n, p = 1.959964, 100, 0.9
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(90, 100) == pytest.approx(((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)))
    assert wilson(100, 100)[1] == 1.0
    assert wilson(0, 100)[0] == 0.0


def test_success_goes_by_either_name():
    assert is_success({"is_success": True})
    assert is_success({"success": 1.0})
    assert not is_success({"is_success": False, "success": True})
    assert not is_success({})


def test_an_episode_that_never_ends_is_cut_off():
    cut = rollout(Line(), Chunks(1), [0], most_steps=2)
    assert len(cut.trajectories[0]) == 2
    assert cut.trajectories[0].outcome == "failure"


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 3)), r"expected \[horizon, 1\] of a policy, got \(2, 3\)"),
        (np.zeros((0, 1)), r"got \(0, 1\)"),
        (np.full((1, 1), np.nan), "finite"),
    ],
)
def test_actions_that_do_not_fit_are_refused(actions, message):
    policy = SimpleNamespace(reset=lambda: None, infer=lambda obs: {"actions": actions})
    with pytest.raises(InputError, match=message):
        rollout(Line(), policy, [0])


def test_seeds_and_counts_that_make_no_sense_are_refused():
    for seeds in ([], [1, 1]):
        with pytest.raises(InputError, match="seeds: expected at least one"):
            rollout(Line(), Chunks(1), seeds)
    boundless = SimpleNamespace(shape=(1,), low=np.array([-np.inf]), high=np.array([1.0]))
    with pytest.raises(InputError, match="with bounds"):
        RandomPolicy(boundless)
