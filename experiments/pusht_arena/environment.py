"""gym-pusht's plane by LeRobot's names: the T's keypoints and the agent, as they are seen from where the agent is."""

from typing import Any

import numpy as np

from experiments.pusht_arena.tee import GOAL, KEYPOINTS, SIDE, pose_of, to_tee, to_world
from perceiver.errors import require

RATE = 10.0
"""Control steps a second."""
STATE, TEE = "observation.state", "observation.points.tee"
STATE_DIMS, TEE_FEATURES, ACTION_DIMS = 2, 4, 2
REACH = 64.0
"""Pixels from the agent to the farthest place that it can be told to go to in a control step, along either axis."""


class PushT:
    """A gymnasium.Env: gym-pusht's, with its places of agent and T by the seed, its physics, its 300 steps, its end.

    Observations, in pixels: STATE, float32 [2], where the agent is; TEE, float32 [8, 7], the T's keypoints, each as
    seen from the agent, its number, how far it is from its place in the goal, and the agent as seen from the T.
    Actions: float32 [2] in [-1, 1], where the agent is to go as seen from where it is, in REACH; gym-pusht's own say
    where in the plane. The reward is gym-pusht's: the share of the goal that the T covers over 0.95, at most 1. An
    episode ends with its success, when more than 0.95 are covered. Needs the extra `pusht`.

    Raises:
        MissingExtraError: gym-pusht is not installed.
    """

    def __init__(self) -> None:
        require("gym_pusht", "pusht")
        gymnasium = require("gymnasium", "pusht")
        spaces = gymnasium.spaces
        # Its checker warns of a T that sticks out of the plane, as it does in some first steps.
        self._plane = gymnasium.make(
            "gym_pusht/PushT-v0", obs_type="environment_state_agent_pos", disable_env_checker=True
        )
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIMS,), np.float32)
        self.observation_space = spaces.Dict(
            {
                STATE: spaces.Box(-np.inf, np.inf, (STATE_DIMS,), np.float32),
                TEE: spaces.Box(-np.inf, np.inf, (len(KEYPOINTS), 3 + TEE_FEATURES), np.float32),
            }
        )

    @property
    def pose(self) -> np.ndarray:
        """The T's x, y and angle, float64 [3]; see `tee`."""
        return pose_of(self._keypoints)

    @property
    def agent(self) -> np.ndarray:
        """The agent's x and y, float64 [2]."""
        return self._agent

    @property
    def watched(self) -> np.ndarray:
        """The agent, the T's pose, and the share of the goal that it covers, 0 before the first step; float64 [6]."""
        return np.concatenate([self._agent, self.pose, [self._covered]])

    def reset(self, *, seed: int, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin the episode of a seed, which has to be said."""
        raw, info = self._plane.reset(seed=seed)
        self._covered = 0.0
        return self._seen(raw), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step of a tenth of a second."""
        target = self._agent + REACH * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        raw, reward, terminated, truncated, info = self._plane.step(np.clip(target, 0.0, SIDE))
        self._covered = float(info["coverage"])
        return self._seen(raw), float(reward), bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close the simulator."""
        self._plane.close()

    def _seen(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._keypoints, self._agent = raw["environment_state"].reshape(-1, 2), raw["agent_pos"]
        return seen(self._keypoints, self._agent)


def seen(keypoints: np.ndarray, agent: np.ndarray) -> dict[str, np.ndarray]:
    """The observation of keypoints [8, 2] and the agent's place [2], in pixels."""
    numbers = np.arange(len(KEYPOINTS))[:, None]
    goal = to_world(KEYPOINTS, np.array(GOAL))
    beside = np.broadcast_to(to_tee(agent[None], pose_of(keypoints)), keypoints.shape)
    parts = [keypoints - agent, numbers, keypoints - goal, beside]
    return {STATE: agent.astype(np.float32), TEE: np.concatenate(parts, axis=1).astype(np.float32)}
