"""MetaWorld's tasks in one environment: by its seed an episode has a task, a place for everything, and words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver.config import suggestion
from perceiver.errors import InputError, require

RATE = 80.0
"""Control steps a second: five of the simulator's of 2.5 ms."""
STATE, WORLD = "observation.state", "observation.environment_state"
STATE_DIMS, WORLD_DIMS, ACTION_DIMS = 4, 20, 4
WORDINGS = {
    False: ("{}", "please {}", "{} now", "I want you to {}", "your task: {}", "go on and {}", "{}, robot"),
    True: ("could you {}", "the job is to {}", "{} for me"),
}
"""By whether they are held out for the test."""


class Tasks:
    """A gymnasium.Env: the seed of an episode decides on its task, one after the other, and on the places of things.

    Observations: STATE, float32 [4], the hand in metres and how far the gripper is open; WORLD, float32 [20], both
    objects as seen from the hand with their quaternions (the second is at the origin of the world where there is
    none), and the goal as seen from the hand and from the first object; "task". Actions: float32 [4] in [-1, 1], the
    hand's way and the gripper's force.

    names: such as "reach-v3". held_out: whether words are those of the test. Needs the extra `metaworld`.

    Raises:
        InputError: no such task; names what there is.
        MissingExtraError: MetaWorld is not installed.
    """

    def __init__(self, names: Sequence[str], held_out: bool = False):
        known = require("metaworld.env_dict", "metaworld").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        policies = require("metaworld.policies", "metaworld").ENV_POLICY_MAP
        spaces = require("gymnasium.spaces", "metaworld")
        if not names:
            raise InputError("tasks: expected at least one, got none")
        for name in names:
            if name not in policies:
                raise InputError(f"tasks: no {name!r} in MetaWorld; {suggestion(name, policies)}")
        self.names, self.held_out = tuple(names), held_out
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIMS,), np.float32)
        self.observation_space = spaces.Dict(
            {
                STATE: spaces.Box(-np.inf, np.inf, (STATE_DIMS,), np.float32),
                WORLD: spaces.Box(-np.inf, np.inf, (WORLD_DIMS,), np.float32),
                "task": spaces.Text(200),
            }
        )
        self._known, self._policies = known, policies
        self._arms: dict[str, Any] = {}
        self._experts = {name: policies[name]() for name in self.names}

    def name_of(self, seed: int) -> str:
        """The task of an episode."""
        return self.names[seed % len(self.names)]

    def reset(self, *, seed: int, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin the episode of a seed, which has to be said."""
        rng = np.random.default_rng([seed, int(self.held_out)])
        self.name = self.name_of(seed)
        self.words = rng.choice(WORDINGS[self.held_out]).format(words_of(self.name))
        self._arm = self._arm_of(self.name)
        self._arm.seed(seed)
        self._raw, info = self._arm.reset()
        return self._seen(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; an episode ends with its success, or as MetaWorld's do after 500 steps."""
        self._raw, reward, terminated, truncated, info = self._arm.step(np.clip(action, -1.0, 1.0))
        return self._seen(), float(reward), bool(terminated or info["success"]), bool(truncated), info

    def expert_action(self) -> np.ndarray:
        """What MetaWorld's scripted expert of this task does now, float32 [4]."""
        return np.clip(self._experts[self.name].get_action(self._raw), -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """Close the simulators."""
        for arm in self._arms.values():
            arm.close()

    def _arm_of(self, name: str) -> Any:
        if name not in self._arms:
            arm = self._known[f"{name}-goal-observable"](seed=0)
            # Places are drawn anew by each reset, from the generator that `seed` sets; there is no argument for it.
            arm.seeded_rand_vec, arm._freeze_rand_vec = True, False
            self._arms[name] = arm
        return self._arms[name]

    def _seen(self) -> dict[str, Any]:
        hand, gripper = self._raw[:3], self._raw[3:4]
        first, second, goal = self._raw[4:7], self._raw[11:14], self._raw[36:39]
        turns = self._raw[7:11], self._raw[14:18]
        world = [first - hand, turns[0], second - hand, turns[1], goal - hand, goal - first]
        return {
            STATE: np.concatenate([hand, gripper]).astype(np.float32),
            WORLD: np.concatenate(world).astype(np.float32),
            "task": self.words,
        }


def words_of(name: str) -> str:
    """A task's name in words: "button-press-topdown-v3" is "button press topdown"."""
    return name.rsplit("-v", 1)[0].replace("-", " ")


class Expert:
    """MetaWorld's own scripted policies, see `perceiver.control.rollout.Policy`."""

    def __init__(self, environment: Tasks):
        self._environment = environment

    def reset(self) -> None:
        """See Policy."""

    def infer(self, obs: Any) -> dict[str, Any]:
        """See Policy."""
        return {"actions": self._environment.expert_action()[None], "timing": {}}
