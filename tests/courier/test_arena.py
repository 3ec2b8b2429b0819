"""The courier's arena: what is sensed fits what stands there, and episodes end as they should."""

import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="needs mujoco: pip install 'perceiver[robotics]'")
pytest.importorskip("gymnasium", reason="needs gymnasium: pip install 'perceiver[robotics]'")

from experiments.courier_arena import sensors
from experiments.courier_arena.environment import MOST_STEPS, Courier, Outcome
from experiments.courier_arena.expert import Expert, moved, steer
from experiments.courier_arena.planning import Plan
from experiments.courier_arena.task import LONGEST, draw_instruction, wordings
from experiments.courier_arena.world import COLOURS, REFLECTANCE, Crate, Layout, Wall, World, draw_layout
from perceiver.control.rollout import rollout

LAYOUT = Layout(
    start=(-2.0, 0.0, 0.0),
    wall=Wall(-0.5, 0.0, 0.8, 0.0),
    crates=(Crate("red", 2.0, 0.0, 0.0), Crate("green", 1.0, 2.0, 0.3), Crate("blue", 1.0, -2.0, 0.6)),
    pillars=((-1.0, 2.0, 0.15),),
    beacon=1,
)


@pytest.fixture(scope="module")
def courier():
    return Courier()


def test_it_is_an_environment_as_gymnasium_wants_it(courier):
    from gymnasium.utils.env_checker import check_env

    check_env(courier, skip_render_check=True)


def test_the_same_seed_gives_the_same_episode(courier):
    def episode(seed):
        first, _ = courier.reset(seed=seed)
        rows = [first] + [courier.step(np.float32([0.8, 0.5]))[0] for _ in range(3)]
        return courier.running.layout, rows

    (layout, rows), (same, again), (other, _) = episode(3), episode(3), episode(4)
    assert layout == same
    assert layout != other
    for one, two in zip(rows, again, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_arenas_leave_room(courier):
    rng = np.random.default_rng(0)
    for _ in range(30):
        layout = draw_layout(rng)
        places = np.array([(c.x, c.y) for c in layout.crates])
        gaps = [np.linalg.norm(places - place, axis=1) for place in places]
        assert min(gap[gap > 0].min() for gap in gaps) >= 1.3
        assert {c.colour for c in layout.crates} == set(COLOURS)
        assert layout.wall.across(np.array([layout.start[:2]]))[0, 0] < -0.8
        assert (layout.wall.across(places)[:, 0] > 0.8).all()


def test_the_lidar_measures_ranges_and_paint():
    world = World(LAYOUT)
    rng = np.random.default_rng(0)
    scans = np.stack([sensors.scan(world, rng) for _ in range(50)])
    lost = ~scans.any(axis=-1)
    assert scans.shape == (50, sensors.RAYS, 4)
    assert 0.01 < lost.mean() < 0.06
    ahead = scans[~lost[:, 0], 0]  # the ray along x meets the wall's near face, 1.45 m away
    assert ahead[:, 0].mean() == pytest.approx(1.45, abs=0.02)
    assert 0.01 < ahead[:, 0].std() < 0.04
    assert ahead[:, 3].mean() == pytest.approx(REFLECTANCE["wall"], abs=0.03)
    moved_there = World(dataclasses.replace(LAYOUT, start=(1.0, 0.0, math.pi / 2)))
    seen = np.stack([sensors.scan(moved_there, rng) for _ in range(50)])
    for ray, colour in ((0, "green"), (sensors.RAYS // 2, "blue"), (3 * sensors.RAYS // 4, "red")):  # turned left
        echoes = seen[seen[:, ray].any(axis=1), ray]
        assert echoes[:, 3].mean() == pytest.approx(REFLECTANCE[colour], abs=0.04)


def test_what_comes_from_the_left_is_heard_sooner_and_louder_there():
    rng = np.random.default_rng(0)
    pose = np.zeros(3)

    def heard(source):
        waves = sensors.hear(source, pose, pose, 1.0, 0.2, rng)
        return waves["left"], waves["right"]

    left, right = heard((0.0, 2.0))
    assert left.shape == (sensors.SAMPLES,)
    assert left.dtype == np.float32
    lags = np.arange(-12, 13)
    alike = [np.dot(left[20:-20], np.roll(right, -lag)[20:-20]) for lag in lags]
    delay = sensors.SAMPLE_RATE * 0.24 / sensors.SPEED_OF_SOUND
    assert lags[int(np.argmax(alike))] == pytest.approx(delay, abs=1.0)
    assert left.std() > 2 * right.std()
    mirrored = heard((0.0, -2.0))
    assert mirrored[1].std() == pytest.approx(left.std(), rel=0.1)
    near, far = heard((1.0, 0.0))[0].std(), heard((4.0, 0.0))[0].std()
    assert near / far == pytest.approx(4.0, rel=0.2)


def test_odometry_follows_the_robot_and_drifts():
    world = World(LAYOUT)
    world.drive(0.0, 0.0, 0.1)
    exact = sensors.Odometry(world.wheels, np.random.default_rng(0), slip=0.0, noise=0.0)
    noisy = sensors.Odometry(world.wheels, np.random.default_rng(0))
    start = world.pose
    for wheels in [(3.0, 4.0)] * 10 + [(3.0, -1.0)] * 5:
        world.drive(*wheels, 0.2)
        exact.update(world.wheels, 0.2)
        noisy.update(world.wheels, 0.2)
    gone = world.pose - start
    assert exact.state[:2] == pytest.approx(gone[:2], abs=0.01)
    assert math.atan2(exact.state[3], exact.state[2]) == pytest.approx(gone[2], abs=0.02)
    off = np.abs(noisy.state[:2] - exact.state[:2]).max()
    assert 1e-4 < off < 0.2


def test_no_wording_of_the_test_is_one_of_the_training():
    known, held_out = set(wordings(False)), set(wordings(True))
    assert not known & held_out
    assert len(known) > 500
    for held, texts in ((False, known), (True, held_out)):
        drawn = [draw_instruction(LAYOUT, np.random.default_rng(i), held) for i in range(50)]
        assert {i.text for i in drawn} <= texts
        for instruction in drawn:
            crate = LAYOUT.crates[instruction.goal]
            assert ("left" in instruction.text) == instruction.left
            assert len(instruction.text) <= LONGEST
            assert (crate.colour in instruction.text) != instruction.sounding
            assert instruction.goal == LAYOUT.beacon or not instruction.sounding


@pytest.mark.parametrize("left", [True, False])
def test_the_plan_keeps_to_the_side_that_is_asked_for(left):
    instruction = dataclasses.replace(draw_instruction(LAYOUT, np.random.default_rng(0), False), goal=0, left=left)
    plan = Plan(LAYOUT, instruction)
    pose, ways = LAYOUT.start, []
    for _ in range(100):
        pose = moved(pose, steer(plan, pose))
        ways.append(pose)
    ways = np.array(ways)
    passing = ways[np.argmax(ways[:, 0] > -0.5)]
    assert (passing[1] > 0.8) if left else (passing[1] < -0.8)
    assert np.linalg.norm(ways[:, :2] - [2.0, 0.0], axis=1).min() < 0.5


def test_the_expert_delivers_and_its_chunk_begins_with_what_it_does_now(courier):
    done = rollout(courier, Expert(courier), range(5))
    assert done.successes == 5
    assert all(t.outcome == Outcome.DELIVERED.value and t.rewards[-1] == 1.0 for t in done.trajectories)
    obs, _ = courier.reset(seed=0)
    one, several = Expert(courier).infer(obs)["actions"], Expert(courier, 4).infer(obs)["actions"]
    assert several.shape == (4, 2)
    assert several.dtype == np.float32
    assert np.array_equal(one[0], several[0])


def ended(courier, seed, change):
    """The outcome when the expert is told of something else than what is judged."""
    courier.reset(seed=seed)
    episode = courier.running
    expert = Expert(courier)
    plan_of = change(episode.instruction)
    expert._episode, expert._plan = episode, Plan(episode.layout, plan_of)
    while True:
        _, reward, terminated, truncated, info = courier.step(expert.infer({})["actions"][0])
        if terminated or truncated:
            return info, reward


def test_a_wrong_crate_and_a_wrong_side_end_the_episode_without_success(courier):
    info, reward = ended(courier, 0, lambda i: dataclasses.replace(i, goal=(i.goal + 1) % 3))
    assert (info["outcome"], info["is_success"], reward) == ("wrong crate", False, 0.0)
    info, reward = ended(courier, 0, lambda i: dataclasses.replace(i, left=not i.left))
    assert (info["outcome"], info["is_success"]) == ("wrong side", False)


def test_standing_still_takes_all_the_time_there_is(courier):
    courier.reset(seed=0)
    for step in range(MOST_STEPS):
        assert courier.running.steps == step
        _, _, terminated, truncated, info = courier.step(np.zeros(2))
    assert (terminated, truncated, info["outcome"]) == (False, True, "timeout")


def test_a_bump_is_real_and_costs_something(courier):
    courier.reset(seed=0)
    start = courier.running.world.pose
    rewards = [courier.step(np.float32([-0.6, -0.6]))[1] for _ in range(15)]  # backwards into the border
    assert min(rewards) == -0.01
    assert courier.running.bumps > 0
    assert courier.running.world.pose[0] > -3.0 + 0.15
    assert start[0] - courier.running.world.pose[0] > 0.1
