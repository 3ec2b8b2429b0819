"""Who plans with the simulator: the expert, whose doings the policy is taught."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.pusht_arena.environment import REACH, PushT
from experiments.pusht_arena.planning import Planner, Push
from experiments.pusht_arena.pushing import STRIDE

AHEAD_FREE, AHEAD_PUSHING = 40.0, 16.0
"""Pixels to the point on the way that is steered for: the agent goes half of that in a control step."""
ARRIVED, BY, ASTRAY = 1.5, 3.0, 30.0
"""Pixels from a push's end and from its beginning that count as there, and from the way that ask for a new plan."""
MOVED = 3.0
"""Pixels that the T may move before a push begins."""
UNEXPECTED = 8.0
"""Pixels that the T may be from where the plan has it; a fiftieth of a radian counts as one."""


class Expert:
    """Plans a push, follows it, and plans anew where it ends or the T has done something else.

    It looks at the environment, not at the observation; see `perceiver.control.rollout.Policy`.
    """

    def __init__(self, environment: PushT):
        self._environment, self._planner = environment, Planner()
        self.reset()

    def reset(self) -> None:
        """Forget the plan."""
        self._push: Push | None = None
        self._before, self._leg = np.zeros(3), 0

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """{"actions": float32 [1, 2]}."""
        del obs
        pose, agent = self._environment.pose, self._environment.agent
        if self._push is None or self._ended(self._push, pose, agent):
            self._push, self._before, self._leg = self._planner.best(pose, agent), pose, 0
        target = agent if self._push is None else self._ahead(self._push, agent)
        return {"actions": np.clip((target - agent) / REACH, -1.0, 1.0).astype(np.float32)[None], "timing": {}}

    def _ended(self, push: Push, pose: np.ndarray, agent: np.ndarray) -> bool:
        """Whether a push is over, or has become another than was planned."""
        pushing = self._leg == len(push.way) - 2
        along, aside = _along(push.way[self._leg], push.way[self._leg + 1], agent)
        if aside > ASTRAY:
            return True
        if not pushing:
            return _apart(pose, self._before) > MOVED
        done = int(along / STRIDE) - 1
        if done >= len(push.poses) - 1 or along > len(push.poses) * STRIDE - ARRIVED:
            return True
        return _apart(pose, self._before if done < 0 else push.poses[done]) > UNEXPECTED

    def _ahead(self, push: Push, agent: np.ndarray) -> np.ndarray:
        """The point of the way that the agent goes for."""
        way, last = push.way, len(push.way) - 2
        while self._leg < last:
            along, _ = _along(way[self._leg], way[self._leg + 1], agent)
            left = np.linalg.norm(way[self._leg + 1] - way[self._leg]) - along
            if left > (BY if self._leg == last - 1 else 4 * BY):
                break
            self._leg += 1
        begin, end = way[self._leg], way[self._leg + 1]
        length = max(float(np.linalg.norm(end - begin)), 1e-9)
        along, _ = _along(begin, end, agent)
        ahead = AHEAD_PUSHING if self._leg == last else AHEAD_FREE
        return begin + (end - begin) * np.clip(along + ahead, 0.0, length) / length


def _along(begin: np.ndarray, end: np.ndarray, place: np.ndarray) -> tuple[float, float]:
    """How far along a line a place is, and how far aside."""
    way = end - begin
    x, y = way / max(float(np.linalg.norm(way)), 1e-9)
    dx, dy = place - begin
    return float(x * dx + y * dy), abs(float(x * dy - y * dx))


def _apart(pose: np.ndarray, other: np.ndarray) -> float:
    turned = (pose[2] - other[2] + np.pi) % (2 * np.pi) - np.pi
    return float(max(*np.abs(pose[:2] - other[:2]), 50.0 * abs(turned)))
