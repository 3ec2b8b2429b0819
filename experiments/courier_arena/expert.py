"""Who knows where everything stands: the scripted expert, whose doings the policy is taught."""

import math
from collections.abc import Mapping, Sequence
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
        pose = episode.world.pose.tolist()
        actions = np.zeros((self._horizon, 2), np.float32)
        for step in range(self._horizon):
            actions[step] = steer(self._plan, pose)
            pose = moved(pose, actions[step])
        return {"actions": actions, "timing": {}}


def steer(plan: Plan, pose: Sequence[float]) -> tuple[float, float]:
    """The wheels' speeds, as shares of FASTEST, that lead from a pose (x, y, heading) along the plan."""
    x, y, heading = pose
    ahead = plan.ahead((x, y), REACH)
    bearing = (math.atan2(ahead[1] - y, ahead[0] - x) - heading + math.pi) % (2 * math.pi) - math.pi
    speed = SPEED * max(math.cos(bearing), 0.0) ** 2
    turn = min(max(2.5 * bearing, -TURN), TURN) * TRACK / 2
    left, right = ((speed + side * turn) / (WHEEL_RADIUS * FASTEST) for side in (-1.0, 1.0))
    most = max(1.0, abs(left), abs(right))
    return left / most, right / most


def moved(pose: Sequence[float], action: Sequence[float]) -> tuple[float, float, float]:
    """The pose after a step of wheels that do not slip."""
    left, right = (speed * FASTEST * WHEEL_RADIUS * STEP for speed in action)
    turn, middle = (right - left) / TRACK, (left + right) / 2
    mean = pose[2] + turn / 2
    return pose[0] + middle * math.cos(mean), pose[1] + middle * math.sin(mean), pose[2] + turn
