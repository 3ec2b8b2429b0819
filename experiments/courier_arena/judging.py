"""How policies fare in the arena: over the same seeds, beside the expert, by chance, and with sensors that fail."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.courier_arena.environment import Courier
from experiments.courier_arena.expert import Expert
from experiments.courier_arena.pictures import animation, paths_from_above
from experiments.courier_arena.samples import KEYS, SENSORS
from perceiver import Perceiver
from perceiver.control.chunking import Receding
from perceiver.control.policy import Policy
from perceiver.control.rollout import RandomPolicy, Rollout, Without, rollout

EXECUTED = 2
"""Actions of each chunk that are done before the policy is asked again."""


def driven(model: Perceiver, seeds: Sequence[int], without: Sequence[str] = (), title: str = "policy") -> Rollout:
    """Episodes of a trained model in the test's wordings. without: keys of observations that never reach it."""
    environment = Courier(held_out=True)
    with Policy(model) as policy:
        # A sensor fails below the chunks, which take the observations between two answers too.
        driver = Without(Receding(policy, EXECUTED), without)
        return rollout(environment, driver, seeds, watch=lambda: environment.running.world.pose, title=title)


def scored(model: Perceiver, seeds: Sequence[int]) -> dict[str, Any]:
    """Success rate with its interval, and how episodes ended."""
    return driven(model, seeds).figures()


def without_sensors(model: Perceiver, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The same with one sensor failed all the time, for each of them; and without the words."""
    failing = {**SENSORS, "words": ("text",)}
    return {
        f"without {name}": driven(model, seeds, [KEYS[part] for part in parts], f"without {name}").figures()
        for name, parts in failing.items()
    }


def beside(seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The expert, which knows where everything stands, and wheels turned at random."""
    environment = Courier(held_out=True)
    return {
        "expert": rollout(environment, Expert(environment), seeds, title="expert").figures(),
        "random": rollout(environment, RandomPolicy(environment.action_space), seeds, title="random").figures(),
    }


def pictures(model: Perceiver, folder: Path, seeds: Sequence[int]) -> None:
    """paths.png: the ways of policy and expert through some arenas; episode.gif: one of them, played."""
    environment = Courier(held_out=True)
    expert = rollout(environment, Expert(environment), seeds, watch=lambda: environment.running.world.pose)
    policy = driven(model, seeds)
    ways = {"policy": policy.trajectories, "expert": expert.trajectories}
    paths_from_above(environment, ways, folder / "paths.png")
    longest = max(policy.trajectories, key=lambda trajectory: (trajectory.success, len(trajectory)))
    animation(environment, longest, folder / "episode.gif")
