"""A saved model as a robot's policy: observations in, chunks of actions out, in time or by a declared fallback."""

import concurrent.futures
import copy
import dataclasses
import enum
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from perceiver.control.actions import act, action_head
from perceiver.control.latency import Latency
from perceiver.control.observations import Given, Observations, robot_of
from perceiver.errors import ConfigError, InputError
from perceiver.model import Perceiver
from perceiver.robot import TASK
from perceiver.saving import load

_WARM = 3
"""Calls before the first that counts."""


class Instead(enum.Enum):
    """What a robot does without a model's answer: the last action again, what the last chunk says, or standing still.

    Where nothing is left of the last chunk, or there was none, it stands still.
    """

    HOLD = "hold"
    CONTINUE = "continue"
    STOP = "stop"


@dataclasses.dataclass(frozen=True)
class Fallback:
    """What to do where no answer comes in time.

    still: the action, one number a dimension, at which the robot stands still: zeros for speeds and differences.
    """

    instead: Instead
    still: tuple[float, ...]


class Why(enum.Enum):
    """Why an answer is the fallback's: it was late, every sensor was absent, or the model's numbers were not finite."""

    LATE = "late"
    BLIND = "blind"
    NOT_FINITE = "not finite"


class _Plan(NamedTuple):
    """Actions from a time of an episode on, one a control step. [horizon, dims]."""

    episode: int
    time: float
    actions: np.ndarray


class Policy:
    """A model that drives a robot: `infer` an observation, `reset` at the beginning of each episode.

    The model is compiled and asked a few times before the first observation; nothing is compiled after that. Without a
    deadline it runs in the caller's thread, otherwise in one of its own, where it finishes late answers in the
    background: `Instead.CONTINUE` does what they say of the steps to come.

    model: a model, or the folder of one, whose config has a `robot`.
    deadline: seconds from the call of `infer` on, above 0; None waits for the model.
    fallback: needed with a deadline. Without any, an observation in which all sensors are absent is the model's to
        answer, and numbers that are not finite are an error.

    Raises:
        ConfigError: the config has no `robot`, the deadline is not above 0 or has no fallback, or `Fallback.still` is
            not one finite number for each dimension of the actions.
        InputError: the folder is damaged; see `perceiver.saving.load`.

    Attributes:
        latency: from the call of `infer` until the model's actions lie on the host, also where that was too late.
        horizon, dims: of a chunk of actions.
    """

    def __init__(
        self,
        model: Perceiver | str | Path,
        *,
        deadline: float | None = None,
        fallback: Fallback | None = None,
    ):
        loaded = load(model) if isinstance(model, str | Path) else model
        if not isinstance(loaded, Perceiver):
            raise ConfigError(f"model: expected a Perceiver with a robot, got {type(loaded).__name__}")
        self._config = loaded.config
        self.robot = robot_of(loaded.config)
        head = action_head(loaded.config, self.robot.action)
        self.horizon, self.dims = head.horizon, head.dims
        self.deadline, self.fallback = deadline, fallback
        self._check()
        self._begin()
        self._run = _compiled(loaded, self._observations.given(), self.robot.action)
        for _ in range(_WARM):
            self._run(self._observations.given())

    def another(self) -> "Policy":
        """The same policy for another robot: the model compiled here, with a history and latencies of its own."""
        policy = copy.copy(self)
        policy._begin()
        return policy

    def _begin(self) -> None:
        """What one robot has of its own."""
        self._observations = Observations(self._config)
        self._worker = None if self.deadline is None else concurrent.futures.ThreadPoolExecutor(1, "policy")
        self.latency = Latency()
        self._episode = 0
        self._planned: _Plan | None = None  # by the model
        self._told: _Plan | None = None  # to the robot, the fallback's too

    def _check(self) -> None:
        if self.deadline is not None and not 0.0 < self.deadline < math.inf:
            raise ConfigError(f"deadline: expected seconds above 0, got {self.deadline}")
        if self.deadline is not None and self.fallback is None:
            raise ConfigError("fallback: a deadline needs one, got none")
        if self.fallback is not None:
            still = self.fallback.still
            if len(still) != self.dims or not all(math.isfinite(number) for number in still):
                raise ConfigError(f"Fallback.still: expected {self.dims} finite numbers, got {still}")

    def reset(self) -> None:
        """A new episode begins. What the model still computes for the last one is never used."""
        self._episode += 1
        self._observations.reset()
        self._planned = self._told = None

    def close(self) -> None:
        """Let the thread end; with a deadline, `infer` cannot be called after this."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Policy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, obs: Mapping[str, Any]) -> None:
        """Take an observation into the history without asking the model; see `Observations.add`."""
        self._observations.add(obs)

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """What to do now and next.

        obs: by LeRobot's names, without batch axis; see `Observations`.

        Returns:
            actions: float32 [horizon, dims], one a control step, the first for the time of this observation.
            fallback: a `Why`, None where the model answered.
            absent: the inputs without a reading that is young enough.
            timing: {"total_ms"}, until this answer.

        Raises:
            InputError: the observation does not fit; names the key. Or, without a fallback, actions are not finite.
        """
        started = time.perf_counter()
        self._observations.add(obs)
        given, now = self._observations.given(), self._observations.now or 0.0
        planned, why = self._ask(given, now, started)
        if planned is None:
            planned = _Plan(self._episode, now, self._instead(now))
        self._told = planned
        return {
            "actions": planned.actions.copy(),
            "fallback": why,
            "absent": given.absent,
            "timing": {"total_ms": 1e3 * (time.perf_counter() - started)},
        }

    def _ask(self, given: Given, now: float, started: float) -> tuple[_Plan | None, Why | None]:
        """The model's plan, or why there is none."""
        if self.fallback is not None and self._blind(given):
            return None, Why.BLIND
        episode = self._episode

        def answer() -> _Plan | None:
            actions = self._run(given)
            self.latency.record(time.perf_counter() - started)
            if not np.isfinite(actions).all():
                if self.fallback is None:
                    raise InputError("actions: expected finite numbers of the model, got NaN or infinity")
                return None
            plan = _Plan(episode, now, actions)
            self._planned = plan
            return plan

        if self._worker is None or self.deadline is None:
            plan = answer()
            return plan, Why.NOT_FINITE if plan is None else None
        future = self._worker.submit(answer)
        try:
            plan = future.result(max(0.0, self.deadline - (time.perf_counter() - started)))
        except concurrent.futures.TimeoutError:
            future.cancel()  # where the thread has not begun with it
            self.latency.misses += 1
            return None, Why.LATE
        return plan, Why.NOT_FINITE if plan is None else None

    def _blind(self, given: Given) -> bool:
        """Whether no sensor says anything; what to do in words is none."""
        sensors = {name for name, sensor in self.robot.sensors.items() if sensor.key != TASK} or {*self.robot.sensors}
        return sensors <= set(given.absent)

    def _instead(self, now: float) -> np.ndarray:
        """The fallback's chunk, float32 [horizon, dims]."""
        assert self.fallback is not None
        actions = np.tile(np.asarray(self.fallback.still, np.float32), (self.horizon, 1))
        match self.fallback.instead:
            case Instead.HOLD if self._told is not None:
                last = self._steps_since(self._told, now) - 1
                actions[:] = self._told.actions[min(max(0, last), self.horizon - 1)]
            case Instead.CONTINUE if self._planned is not None and self._planned.episode == self._episode:
                rest = self._planned.actions[self._steps_since(self._planned, now) :]
                actions[: len(rest)] = rest
        return actions

    def _steps_since(self, plan: _Plan, now: float) -> int:
        return round((now - plan.time) * self.robot.rate)


def _compiled(model: Perceiver, example: Given, name: str) -> Callable[[Given], np.ndarray]:
    """The model's actions [horizon, dims] for one observation, compiled for its shapes; they lie on the host."""
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    leaves = jax.device_put(leaves)

    def chosen(leaves, inputs, masks):
        return act(nnx.merge(graph, jax.tree.unflatten(tree, leaves)), inputs, masks, name)[0]

    program = jax.jit(chosen).lower(leaves, example.inputs, example.masks).compile()

    def run(given: Given) -> np.ndarray:
        return np.array(program(leaves, given.inputs, given.masks))  # waits for the device

    return run
