"""Push-T: the plane as it is seen, its mirror, the expert who plans, and the recipe that learns from it."""

import itertools
import json

import numpy as np
import pytest

pytest.importorskip("gym_pusht", reason="needs gym-pusht: pip install 'perceiver[pusht]'")

from experiments.pusht import HORIZON, figures, judged, model, pusht
from experiments.pusht_arena.around import Around
from experiments.pusht_arena.demonstrations import demonstrations
from experiments.pusht_arena.environment import REACH, STATE, TEE, PushT, seen
from experiments.pusht_arena.expert import Expert
from experiments.pusht_arena.mirror import mirrored
from experiments.pusht_arena.planning import Planner
from experiments.pusht_arena.pushing import Pushes
from experiments.pusht_arena.tee import GOAL, KEYPOINTS, RADIUS, contacts, error, pose_of, to_tee, to_world
from perceiver import cli
from perceiver.control.demonstrations import Demonstrations
from perceiver.control.observations import Observations
from perceiver.control.rollout import RandomPolicy, Rollout, Trajectory


@pytest.fixture(scope="module")
def plane():
    return PushT()


def test_a_pose_is_read_from_the_keypoints_as_the_simulator_has_it(plane):
    for seed in (0, 1):
        obs, _ = plane.reset(seed=seed)
        block = plane._plane.unwrapped.block
        assert plane.pose == pytest.approx((*block.position, np.arctan2(np.sin(block.angle), np.cos(block.angle))))
        np.testing.assert_allclose(obs[TEE][:, :2] + obs[STATE], to_world(KEYPOINTS, plane.pose), atol=1e-3)
    assert pose_of(to_world(KEYPOINTS, np.array(GOAL))) == pytest.approx(GOAL)
    assert error(np.array([GOAL]))[0] == 0.0
    assert error(np.array([[256, 266, GOAL[2]]]))[0] == pytest.approx(10)


def test_an_action_says_where_to_go_from_here(plane):
    plane.reset(seed=5)
    target = plane.agent + np.array([20.0, -10.0])
    for _ in range(30):
        plane.step((target - plane.agent) / REACH)
    assert plane.agent == pytest.approx(target, abs=0.5)


def test_the_simulated_push_is_what_then_happens(plane):
    plane.reset(seed=0)
    pose = plane.pose
    place, normal = (each[4] for each in contacts())
    start = to_world((place + normal * (RADIUS + 6))[None], pose)[0]
    planned = Pushes().push(pose, start, to_world(-normal[None], pose)[0] - pose[:2], 40.0)
    agent = plane._plane.unwrapped.agent
    agent.position, agent.velocity = start.tolist(), (0.0, 0.0)
    plane._agent = start
    target = start + 40.0 * (to_world(-normal[None], pose)[0] - pose[:2])
    for _ in range(40):
        plane.step(np.clip(target - plane.agent, -16, 16) / REACH)
    assert np.abs(planned[-1] - pose)[:2].max() > 10  # it was moved
    assert planned[-1] == pytest.approx(plane.pose, abs=1.0)


def test_ways_around_the_t_do_not_touch_it():
    places, normals = contacts()
    around = Around(places + normals * (RADIUS + 6))
    pose, agent = np.array([250.0, 200.0, 0.4]), np.array([250.0, 420.0])
    ways = dict(around.ways(pose, agent))
    assert len(ways) == len(places)  # all of them, far from the walls
    for number, way in ways.items():
        assert way[0] == pytest.approx(agent)
        assert to_tee(way[-1:], pose)[0] == pytest.approx(places[number] + normals[number] * (RADIUS + 6))
        along = np.concatenate([np.linspace(a, b, 20) for a, b in itertools.pairwise(way)])
        assert min(around.gap(pose, place) for place in along) > 0
    near_the_wall = np.array([250.0, 8.0, 0.0])  # its bar along the wall
    assert 0 < len(dict(around.ways(near_the_wall, agent))) < len(places)


def test_a_plan_gains_and_there_is_none_at_the_goal():
    pose = np.array([300.0, 220.0, 1.5])
    push = Planner().best(pose, np.array([100.0, 100.0]))
    assert error(push.poses[-1:])[0] < 0.7 * error(pose[None])[0]
    assert Planner().best(np.array(GOAL), np.array([100.0, 100.0])) is None


def test_the_expert_succeeds_and_chance_does_not(plane):
    expert = figures(judged(Expert(plane), plane, range(2), "expert"))
    assert expert["success_rate"] == 1.0
    assert expert["mean_max_coverage"] > 0.95
    assert expert["mean_max_reward"] == 1.0
    chance = figures(judged(RandomPolicy(plane.action_space), plane, range(2), "random"))
    assert chance["success_rate"] == 0.0
    assert chance["mean_max_reward"] == pytest.approx(chance["mean_max_coverage"] / 0.95)


def test_the_most_that_was_covered_counts_and_not_the_last():
    def one(seed, covered, success):
        places, rewards = np.zeros((4, 6)), np.minimum(np.array(covered) / 0.95, 1.0)
        places[1:, -1] = covered
        return Trajectory(seed, success, "", np.zeros((3, 2), np.float32), rewards, places)

    found = figures(Rollout([one(0, [0.1, 0.7, 0.2], False), one(1, [0.3, 0.6, 0.97], True)]))
    assert found["mean_max_coverage"] == pytest.approx((0.7 + 0.97) / 2)
    assert found["mean_max_reward"] == pytest.approx((0.7 / 0.95 + 1.0) / 2)
    assert found["success_rate"] == 0.5


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("recordings"), 1, 2)


def test_demonstrations_are_recorded_once(shown, tmp_path, monkeypatch):
    first = demonstrations(tmp_path, 1, 1)
    monkeypatch.setattr("experiments.pusht_arena.demonstrations.PushT", None)  # nothing to record with
    again = demonstrations(tmp_path, 1, 1)
    assert len(first) == len(again) == 1
    for key in (STATE, TEE, "action"):
        np.testing.assert_array_equal(first[0].values[key], again[0].values[key])
        np.testing.assert_array_equal(first[0].values[key], shown[0].values[key])  # the seed decides


def test_a_sample_is_what_a_control_loop_gives(shown, plane):
    samples = Demonstrations(shown, model(1, 8, 1))
    observations = Observations(model(1, 8, 1))
    obs, _ = plane.reset(seed=1)
    observations.add(obs)
    live, kept = observations.given(), samples[0]
    assert kept["targets"]["action"].shape == (HORIZON, 2)
    for name, raw in kept["inputs"].items():
        np.testing.assert_array_equal(live.inputs[name][0], raw)
        np.testing.assert_array_equal(live.masks[name][0], kept["masks"][name])


def test_the_mirror_shows_a_t_that_could_be_there(shown):
    sample = Demonstrations(shown, model(1, 8, 1))[9]
    there = mirrored(sample)
    back = mirrored(there)
    for group in ("inputs", "targets"):
        for name, values in sample[group].items():
            np.testing.assert_allclose(back[group][name], values, atol=1e-3)
    agent = there["inputs"]["agent"][-1].astype(np.float64)
    keypoints = there["inputs"]["tee"][:, :2].astype(np.float64) + agent
    np.testing.assert_allclose(keypoints, to_world(KEYPOINTS, pose_of(keypoints)), atol=1e-2)
    np.testing.assert_allclose(seen(keypoints, agent)[TEE], there["inputs"]["tee"], atol=1e-2)


@pytest.mark.slow
def test_the_recipe_goes_through(tmp_path, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    run = tmp_path / "run"
    cli.main(
        ["train", "experiments/pusht.py", "--smoke", "--workdir", str(run), "--recordings", str(tmp_path / "shown")]
    )
    report = json.loads((run / "report.json").read_text())
    assert report["test"]["episodes"] == 1
    assert 0.0 <= report["test"]["mean_max_coverage"] <= 1.0
    assert set(report["control"]) == {"untrained", "without the T"}
    assert set(report["baselines"]) == {"expert", "random"}
    assert list(run.rglob("ways.png"))


def test_the_recipe_says_what_it_would_train():
    assert pusht(episodes=3, steps=5).steps == 5
