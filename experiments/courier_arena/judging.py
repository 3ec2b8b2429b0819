"""How policies fare in the arena: over the same seeds, beside the expert, by chance, and with sensors that fail."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.courier_arena.environment import MOST_STEPS, Courier
from experiments.courier_arena.expert import Expert
from experiments.courier_arena.pictures import animation, paths_from_above
from experiments.courier_arena.samples import KEYS, SENSORS
from perceiver import Perceiver
from perceiver.control.chunking import Receding
from perceiver.control.policy import Policy
from perceiver.control.rollout import Policy as Driver
from perceiver.control.rollout import RandomPolicy, Rollout, Without, rollout

EXECUTED = 2
"""Actions of each chunk that are done before the policy is asked again."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Episodes in which policies are told what to do in the test's wordings.

    seeds: one for each episode, the same for every policy. most_steps: after which an episode is given up.
    """

    seeds: Sequence[int]
    most_steps: int = MOST_STEPS

    def scored(self, model: Perceiver) -> dict[str, Any]:
        """Success rate with its interval, and how episodes ended."""
        with Policy(model) as policy:
            return self._driven(policy).figures()

    def without_sensors(self, model: Perceiver) -> dict[str, dict[str, Any]]:
        """The same with one sensor failed all the time, for each of them; and without the words."""
        failing = {**SENSORS, "words": ("text",)}
        with Policy(model) as policy:
            return {
                f"without {name}": self._driven(policy, f"without {name}", [KEYS[part] for part in parts]).figures()
                for name, parts in failing.items()
            }

    def beside(self) -> dict[str, dict[str, Any]]:
        """The expert, which knows where everything stands, and wheels turned at random."""
        environment = Courier(held_out=True)
        policies = {"expert": Expert(environment), "random": RandomPolicy(environment.action_space)}
        return {name: self._rollout(environment, policy, name).figures() for name, policy in policies.items()}

    def pictures(self, model: Perceiver, folder: Path) -> None:
        """paths.png: the ways of policy and expert through the arenas; episode.gif: the longest success, played."""
        environment = Courier(held_out=True)
        expert = self._rollout(environment, Expert(environment), "expert").trajectories
        with Policy(model) as policy:
            driven = self._driven(policy).trajectories
        paths_from_above(environment, {"policy": driven, "expert": expert}, folder / "paths.png")
        shown = max(driven, key=lambda trajectory: (trajectory.success, len(trajectory)))
        animation(environment, shown, folder / "episode.gif")

    def _driven(self, policy: Policy, title: str = "policy", without: Sequence[str] = ()) -> Rollout:
        """without: keys of observations that never reach the policy."""
        return self._rollout(Courier(held_out=True), Without(Receding(policy, EXECUTED), without), title)

    def _rollout(self, environment: Courier, policy: Driver, title: str) -> Rollout:
        return rollout(
            environment,
            policy,
            self.seeds,
            most_steps=self.most_steps,
            watch=lambda: environment.running.world.pose,
            title=title,
        )
