"""Who knows where everything stands: the scripted expert, whose doings the policy is taught."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.courier_arena.environment import STEP, Courier
from experiments.courier_arena.planning import Plan
from experiments.courier_arena.world import FASTEST, TRACK, WHEEL_RADIUS

SPEED, TURN = 0.6, 2.0
"""Metres per second along a straight way, and radians per second at most."""
REACH = 0.4
"""Metres to the point on the way that is steered for (pure pursuit, Coulter 1992, CMU-RI-TR-92-01)."""


class Expert:
    """Drives along the plan of the environment's running episode, `horizon` steps at a time.

    Its chunk is what it would do if the robot moved exactly as told; see `perceiver.control.rollout.Policy`.
    """

    def __init__(self, environment: Courier, horizon: int = 1):
        self._environment, self._horizon = environment, horizon
        self._episode, self._plan = None, None

    def reset(self) -> None:
        """Nothing is kept from one episode to the next but what is found again."""

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """{"actions": float32 [horizon, 2]}; looks at the environment, not at `obs`."""
        del obs
        episode = self._environment.running
        if episode is not self._episode or self._plan is None:
            self._episode, self._plan = episode, Plan(episode.layout, episode.instruction)
        pose = episode.world.pose
        actions = np.zeros((self._horizon, 2), np.float32)
        for step in range(self._horizon):
            actions[step] = steer(self._plan, pose)
            pose = moved(pose, actions[step])
        return {"actions": actions, "timing": {}}


def steer(plan: Plan, pose: np.ndarray) -> np.ndarray:
    """The wheels' speeds [2], as shares of FASTEST, that lead from a pose along the plan."""
    way = plan.ahead(pose[:2], REACH) - pose[:2]
    bearing = (math.atan2(way[1], way[0]) - pose[2] + math.pi) % (2 * math.pi) - math.pi
    speed = SPEED * max(math.cos(bearing), 0.0) ** 2
    turn = np.clip(2.5 * bearing, -TURN, TURN)
    wheels = (speed + np.array([-1.0, 1.0]) * turn * TRACK / 2) / (WHEEL_RADIUS * FASTEST)
    return wheels / max(1.0, np.abs(wheels).max())


def moved(pose: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The pose after a step of wheels that do not slip."""
    left, right = action * FASTEST * WHEEL_RADIUS * STEP
    turn = (right - left) / TRACK
    mean = pose[2] + turn / 2
    middle = (left + right) / 2
    return np.array([pose[0] + middle * math.cos(mean), pose[1] + middle * math.sin(mean), pose[2] + turn])
