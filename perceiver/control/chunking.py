"""Chunks of actions that overlap, as one action for each control step."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from perceiver.errors import ConfigError, InputError


class _Chunk(NamedTuple):
    step: int
    actions: np.ndarray


class Chunks:
    """What is planned for the coming control steps, from chunks that may come late.

    A chunk belongs to the control step of the observation that it answers. What was to be done in the steps that have
    passed since is skipped, however many these are.

    ensemble: None does what the chunk of the newest observation says. A number m >= 0 does the mean of all chunks that
        reach this step, weighted by exp(-m i), i = 0 for the oldest (ACT, arXiv 2304.13705); ACT takes 0.01.
    step: control steps done.
    """

    def __init__(self, ensemble: float | None = None):
        if ensemble is not None and not 0.0 <= ensemble < math.inf:
            raise ConfigError(f"ensemble: expected None, or 0 or more, got {ensemble}")
        self.ensemble = ensemble
        self.step = 0
        self._chunks: list[_Chunk] = []

    def reset(self) -> None:
        """A new episode begins, with nothing planned."""
        self.step = 0
        self.clear()

    def clear(self) -> None:
        """Nothing is planned any more."""
        self._chunks = []

    def add(self, actions: np.ndarray, step: int) -> None:
        """Take a chunk [horizon, dims] whose first action is for control step `step`, now or in the past.

        Raises:
            InputError: another shape, actions that are not finite, or a step to come.
        """
        actions = np.asarray(actions, np.float32)
        if actions.ndim != 2 or not actions.size or (self._chunks and actions.shape[1] != self._dims):
            raise InputError(f"actions: expected [horizon, dims], dims as before, got {list(actions.shape)}")
        if not np.isfinite(actions).all():
            raise InputError("actions: expected finite numbers, got NaN or infinity")
        if not 0 <= step <= self.step:
            raise InputError(f"step: expected 0 to {self.step}, the present one, got {step}")
        newest = self._chunks[-1].step if self._chunks else -1
        if self.ensemble is None and step < newest:  # overtaken by the chunk of a newer observation
            return
        others = [] if self.ensemble is None else [chunk for chunk in self._chunks if chunk.step != step]
        self._chunks = sorted([*others, _Chunk(step, actions)], key=lambda chunk: chunk.step)
        self._forget()

    @property
    def left(self) -> int:
        """Control steps from now on for which something is planned."""
        return max((chunk.step + len(chunk.actions) - self.step for chunk in self._chunks), default=0)

    def next(self) -> np.ndarray:
        """What to do in this step, float32 [dims]; the step then counts as done.

        Raises:
            InputError: nothing is planned for it.
        """
        if not self._chunks:
            raise InputError(f"step {self.step}: expected a chunk that reaches it, got none")
        rows = np.stack([chunk.actions[self.step - chunk.step] for chunk in self._chunks])
        weights = np.exp(-(self.ensemble or 0.0) * np.arange(len(rows)))
        self.step += 1
        self._forget()
        return (weights @ rows / weights.sum()).astype(np.float32)

    @property
    def _dims(self) -> int:
        return self._chunks[0].actions.shape[1]

    def _forget(self) -> None:
        self._chunks = [chunk for chunk in self._chunks if chunk.step + len(chunk.actions) > self.step]


class Chunking(Protocol):
    """A policy that also takes observations without answering; see `perceiver.control.policy.Policy`."""

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """An observation to a chunk."""
        ...

    def observe(self, obs: Mapping[str, Any]) -> None:
        """An observation that needs no answer."""
        ...

    def reset(self) -> None:
        """A new episode begins."""
        ...


class Receding:
    """A policy that gives one action a step, of chunks of which it does the first few (receding horizon).

    executed: control steps after which the policy is asked again; sooner where a chunk is shorter. ensemble: see
        `Chunks`; of use where `executed` is below the horizon, 1 in ACT.
    """

    def __init__(self, policy: Chunking, executed: int = 1, ensemble: float | None = None):
        if executed < 1:
            raise ConfigError(f"executed: expected at least 1 action of a chunk, got {executed}")
        self.policy, self.executed = policy, executed
        self.chunks = Chunks(ensemble)
        self._asked = 0

    def reset(self) -> None:
        """A new episode begins."""
        self.policy.reset()
        self.chunks.reset()

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """The observation of a control step to {"actions": float32 [1, dims], "timing"}, and what else was answered."""
        step, answer = self.chunks.step, dict[str, Any](timing={})
        if not self.chunks.left or step - self._asked >= self.executed:
            answer = dict(self.policy.infer(obs))
            if answer.get("fallback"):  # which is not to be mixed with what was planned before
                self.chunks.clear()
            self.chunks.add(answer["actions"], step)
            self._asked = step
        else:
            self.policy.observe(obs)
        return {**answer, "actions": self.chunks.next()[None]}
