"""The arena as a Gymnasium environment: what is sensed and said goes in, speeds of two wheels come out."""

import dataclasses
import enum
import math
from typing import Any

import numpy as np

from experiments.courier_arena.sensors import FARTHEST, RANGE_NOISE, RAYS, SAMPLES, Odometry, hear, scan
from experiments.courier_arena.task import LONGEST, Instruction, draw_instruction
from experiments.courier_arena.world import COLOURS, FASTEST, WHEEL_RADIUS, Layout, World, draw_layout
from perceiver.errors import require

gymnasium: Any = require("gymnasium", "robotics")
spaces = gymnasium.spaces

STEP = 0.2
"""Seconds from one action to the next."""
MOST_STEPS = 150
"""Steps after which an episode is over: half a minute."""
LETTERS = "abcdefghijklmnopqrstuvwxyz, "
FARTHEST_ROLLED = 2.0 * FASTEST * WHEEL_RADIUS * STEP * MOST_STEPS
"""Metres that odometry may show at most: wheels that turn without end, twice as fast as they can."""


class Outcome(enum.Enum):
    """How an episode stands, or how it ended."""

    RUNNING = "running"
    DELIVERED = "delivered"
    WRONG_CRATE = "wrong crate"
    WRONG_SIDE = "wrong side"
    TIMEOUT = "timeout"


@dataclasses.dataclass
class Episode:
    """All of an episode that no policy may see, but the expert and the judge.

    bumps: steps in which the robot touched what is no crate. passed: whether it is behind the wall's line.
    """

    layout: Layout
    instruction: Instruction
    world: World
    odometry: Odometry
    outcome: Outcome = Outcome.RUNNING
    passed: bool = False
    steps: int = 0
    bumps: int = 0

    @property
    def places_from_robot(self) -> np.ndarray:
        """Where the crate of each of the COLOURS is, the one that sounds and the one that is asked for; metres in the
        robot's frame, float64 [5, 2].
        """
        crates, (x, y, heading) = self.layout.crates, self.world.pose
        by_colour = {crate.colour: crate for crate in crates}
        asked = [by_colour[colour] for colour in COLOURS]
        asked += [crates[self.layout.beacon], crates[self.instruction.goal]]
        ahead = np.array([math.cos(heading), math.sin(heading)])
        return np.array([[crate.x - x, crate.y - y] for crate in asked]) @ np.stack([ahead, [-ahead[1], ahead[0]]]).T


class Courier(gymnasium.Env):
    """A wheeled robot that is to touch the crate it is told of, having passed the wall on the side it is told of.

    Observations, by LeRobot's names: "observation.state" float32 [6] (see `Odometry.state`),
    "observation.points.lidar" float32 [RAYS, 4] (see `scan`), "observation.audio.left" and "observation.audio.right"
    float32 [SAMPLES] in [-1, 1] at SAMPLE_RATE Hz, "task" a text.
    Actions: float32 [2] in [-1, 1], the left and the right wheel's speed, as a share of FASTEST.
    Rewards: 1 for the right crate, -0.01 for a step in which the robot touched anything that is no crate.
    An episode ends with the first crate that is touched, with the wall passed on the wrong side, or after MOST_STEPS.
    Infos: "is_success", and "outcome", the name of an Outcome.

    held_out: instructions in the test's wordings. pillars: how many are in the way.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": round(1 / STEP)}  # noqa: RUF012 Gymnasium's own

    def __init__(self, held_out: bool = False, pillars: int = 3):
        self.held_out, self.pillars = held_out, pillars
        state = np.float32([FARTHEST_ROLLED, FARTHEST_ROLLED, 1.0, 1.0, 2.0 * FASTEST, 2.0 * FASTEST])
        ear = spaces.Box(-1.0, 1.0, (SAMPLES,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "observation.state": spaces.Box(-state, state, dtype=np.float32),
                "observation.points.lidar": spaces.Box(*_each_ray(), dtype=np.float32),
                "observation.audio.left": ear,
                "observation.audio.right": ear,
                "task": spaces.Text(LONGEST, min_length=1, charset=LETTERS),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.episode: Episode | None = None

    @property
    def running(self) -> Episode:
        """What is going on."""
        assert self.episode is not None, "reset comes first"
        return self.episode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode; the same seed gives the same arena, instruction and noise."""
        super().reset(seed=seed)
        layout = draw_layout(self.np_random, self.pillars)
        instruction = draw_instruction(layout, self.np_random, self.held_out)
        world = World(layout)
        world.drive(0.0, 0.0, 0.1)  # to settle on its wheels
        self.episode = Episode(layout, instruction, world, Odometry(world.wheels, self.np_random))
        return self._observed(world.pose), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Turn the wheels for STEP seconds."""
        now = self.running
        before = now.world.pose
        left, right = FASTEST * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        touched, bumped = now.world.drive(left, right, STEP)
        now.odometry.update(now.world.wheels, STEP)
        now.steps += 1
        now.bumps += bumped
        now.outcome = self._judged(before[:2], touched)
        success = now.outcome is Outcome.DELIVERED
        ended = now.outcome in (Outcome.DELIVERED, Outcome.WRONG_CRATE, Outcome.WRONG_SIDE)
        reward = float(success) - 0.01 * bumped
        return self._observed(before), reward, ended, now.outcome is Outcome.TIMEOUT, self._info()

    def _judged(self, before: np.ndarray, touched: int | None) -> Outcome:
        now = self.running
        (behind, _), (ahead, left) = now.layout.wall.across(np.stack([before, now.world.pose[:2]]))
        if ahead > 0.0 and not now.passed:
            now.passed = True
            if (left > 0.0) != now.instruction.left:
                return Outcome.WRONG_SIDE
        elif ahead < 0.0 and behind >= 0.0:
            now.passed = False  # it went back, and may pass once more
        if touched is not None:
            return Outcome.DELIVERED if touched == now.instruction.goal else Outcome.WRONG_CRATE
        return Outcome.TIMEOUT if now.steps >= MOST_STEPS else Outcome.RUNNING

    def _observed(self, before: np.ndarray) -> dict[str, Any]:
        """before: the robot's pose at the last observation."""
        now = self.running
        crate = now.layout.crates[now.layout.beacon]
        end = (now.steps + 1) * STEP
        heard = hear((crate.x, crate.y), before, now.world.pose, end, STEP, self.np_random)
        return {
            "observation.state": now.odometry.state,
            "observation.points.lidar": scan(now.world, self.np_random),
            **{f"observation.audio.{name}": wave for name, wave in heard.items()},
            "task": now.instruction.text,
        }

    def _info(self) -> dict[str, Any]:
        outcome = self.running.outcome
        return {"is_success": outcome is Outcome.DELIVERED, "outcome": outcome.value}


def _each_ray() -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a scan, float32 [RAYS, 4] each."""
    far = FARTHEST + 10 * RANGE_NOISE
    return np.tile(np.float32([-far, -far, 0.0, 0.0]), (RAYS, 1)), np.tile(np.float32([far, far, 1.0, 1.0]), (RAYS, 1))
