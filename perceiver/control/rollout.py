"""Policies in closed loop: any policy in any Gymnasium environment, success and its interval over the same seeds."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from rich.console import Console
from rich.progress import Progress

from perceiver.errors import InputError


class Policy(Protocol):
    """What drives: unbatched numpy in and out.

    `infer` takes an observation by LeRobot's names and gives {"actions": float32 [horizon, dims], …}, the first row to
    be done now. `reset` is called before each episode.
    """

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What to do now and next."""
        ...

    def reset(self) -> None:
        """Forget the last episode."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """A policy that draws at random: before each episode it is told its seed, so that what it does there hangs neither
    on the episodes before nor on their order.
    """

    def seed(self, episode: int) -> None:
        """The next episode begins with this seed."""
        ...


class RandomPolicy:
    """Actions drawn evenly from a bounded space; the same `seed` and the same episode give the same row of actions."""

    def __init__(self, space: Any, seed: int = 0):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise InputError(f"RandomPolicy: expected an action space with bounds, got {space}")
        self._space, self._seed = space, seed
        self.seed(0)

    def seed(self, episode: int) -> None:
        """See Drawing."""
        self._rng = np.random.default_rng([self._seed, episode])

    def reset(self) -> None:
        """See Policy. What is drawn next is `seed`'s to say."""

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """See Policy."""
        action = self._rng.uniform(self._space.low, self._space.high).astype(np.float32)
        return {"actions": action[None], "timing": {}}


class Without:
    """A policy that some sensors have failed: what they say, by their keys, never reaches it."""

    def __init__(self, policy: Policy, keys: Collection[str]):
        self._policy, self._keys = policy, frozenset(keys)

    def reset(self) -> None:
        """See Policy."""
        self._policy.reset()

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """See Policy."""
        return self._policy.infer({key: value for key, value in obs.items() if key not in self._keys})


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of t steps.

    seed: that it began with. success: whether any step was one. outcome: what the environment called its end, or
    "success" or "failure". actions: float32 [t, dims]. rewards: float64 [t].
    places: float64 [t + 1, k], what `watch` saw before each step and at the end; None where nothing watched.
    """

    seed: int
    success: bool
    outcome: str
    actions: np.ndarray
    rewards: np.ndarray
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rewards)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """Episodes of one policy, in the order of their seeds."""

    trajectories: Sequence[Trajectory]

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(trajectory.success for trajectory in self.trajectories)

    def figures(self) -> dict[str, Any]:
        """Success rate with its 95 % Wilson interval, mean return, mean length in steps, and how episodes ended."""
        count = len(self.trajectories)
        low, high = wilson(self.successes, count)
        outcomes = Counter(trajectory.outcome for trajectory in self.trajectories)
        return {
            "success_rate": self.successes / count,
            "episodes": count,
            "interval_95": {"success_rate": {"low": low, "high": high}},
            "mean_return": float(np.mean([trajectory.rewards.sum() for trajectory in self.trajectories])),
            "mean_length": float(np.mean([len(trajectory) for trajectory in self.trajectories])),
            "outcomes": dict(sorted(outcomes.items())),
        }


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a rate (Wilson 1927), in [0, 1]."""
    from scipy.stats import binomtest

    interval = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def is_success(info: Mapping[str, Any]) -> bool:
    """What most environments call it; MetaWorld says "success", without "is_"."""
    return bool(info.get("is_success", info.get("success", False)))


def rollout(
    environment: Any,
    policy: Policy,
    seeds: Sequence[int],
    *,
    most_steps: int = 10_000,
    succeeded: Callable[[Mapping[str, Any]], bool] = is_success,
    watch: Callable[[], np.ndarray] | None = None,
    title: str = "episodes",
) -> Rollout:
    """Let a policy drive one episode from each seed. The same seed, environment and policy give the same episode.

    The policy is asked in every step, and the first action of its chunk is done: `perceiver.control.chunking.Receding`
    does more of each.

    environment: a gymnasium.Env. most_steps: where an episode ends that the environment does not end.
    succeeded: whether a step's info means success. watch: numbers [k] to record beside, such as the robot's pose.
    title: what the progress bar says.

    Raises:
        InputError: no seed, the same seed twice, or actions that are not finite or of another shape than [n, dims].
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(
            f"seeds: expected at least one, each once, got {len(seeds)}, {len(set(seeds))} of them different"
        )
    console = Console(stderr=True)
    done: list[Trajectory] = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=len(seeds))
        for seed in seeds:
            done.append(_episode(environment, policy, int(seed), most_steps, succeeded, watch))
            succeeding = sum(trajectory.success for trajectory in done)
            bar.update(task, advance=1, description=f"{title}: {succeeding} of {len(done)}")
    return Rollout(tuple(done))


def _episode(
    environment: Any,
    policy: Policy,
    seed: int,
    most_steps: int,
    succeeded: Callable[[Mapping[str, Any]], bool],
    watch: Callable[[], np.ndarray] | None,
) -> Trajectory:
    obs, info = environment.reset(seed=seed)
    if isinstance(policy, Drawing):
        policy.seed(seed)
    policy.reset()
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    places = [] if watch is None else [watch()]
    success, ended = False, False
    while not ended and len(rewards) < most_steps:
        action = _checked(policy.infer(obs), environment.action_space.shape)[0]
        obs, reward, terminated, truncated, info = environment.step(action)
        actions.append(action)
        rewards.append(float(reward))
        if watch is not None:
            places.append(watch())
        success |= succeeded(info)
        ended = terminated or truncated
    outcome = str(info.get("outcome", "success" if success else "failure"))
    seen = None if watch is None else np.asarray(places, np.float64)
    return Trajectory(seed, success, outcome, np.asarray(actions, np.float32), np.asarray(rewards), seen)


def _checked(answer: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    actions = np.asarray(answer["actions"], np.float32)
    if actions.shape[1:] != shape or len(actions) < 1:
        raise InputError(f"actions: expected [horizon, {', '.join(map(str, shape))}] of a policy, got {actions.shape}")
    if not np.isfinite(actions).all():
        raise InputError("actions: expected finite numbers of a policy, got NaN or infinity")
    return actions
