"""What happens in an environment, as a LeRobotDataset v3 folder; demonstrations off the way, and recorded once."""

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.control.lerobot import IMAGE, VIDEO, Feature, Writer
from perceiver.control.rollout import is_success
from perceiver.errors import InputError
from perceiver.robot import OBSERVATION, TASK, TIMESTAMP

ACTION, REWARD, DONE, SUCCESS = "action", "next.reward", "next.done", "next.success"
"""LeRobot's names of what was done, and what came of it."""


def by_lerobots_names(obs: Any) -> dict[str, Any]:
    """An environment's observation by LeRobot's names: an array is "observation.state"; of a dict, keys that have these
    names keep them, pictures uint8 [h, w, 3] become "observation.images.KEY" and others "observation.KEY".
    """
    if not isinstance(obs, Mapping):
        return {OBSERVATION + "state": obs}
    named = {}
    for key, value in obs.items():
        if key in (TASK, TIMESTAMP) or key.startswith(OBSERVATION):
            named[key] = value
        else:
            named[f"{OBSERVATION}images.{key}" if _is_picture(np.asarray(value)) else OBSERVATION + key] = value
    return named


class Recorder:
    """An environment around another that writes each episode to a folder; `with Recorder(…) as environment: …`.

    It steps and resets as the environment inside, whose other attributes it has; put it outermost. An episode is
    written when it ends; one that `reset` cuts off is left out. Each frame has the observation, the action done then,
    and the reward, end and success that came of it. The first episode decides on shapes and dtypes. See `Writer` for
    what an interrupt leaves.

    environment: a gymnasium.Env. folder: where; nothing may be there.
    rate: control steps a second.
    task: what is to be done, in words, where observations do not say "task".
    observe: an observation to LeRobot's names.
    keep: whether an episode is written, asked about the infos of its steps; such as `any_success`.
    film: cameras as films, smaller and not exact, rather than as lossless pictures. robot: what is recorded.

    Raises:
        InputError: the folder exists, or the rate is not one.
    """

    def __init__(
        self,
        environment: Any,
        folder: str | Path,
        rate: float,
        task: str | None = None,
        *,
        observe: Callable[[Any], Mapping[str, Any]] = by_lerobots_names,
        keep: Callable[[list[Mapping[str, Any]]], bool] = lambda infos: True,
        film: bool = True,
        robot: str | None = None,
    ):
        if not 0.0 < rate < math.inf:
            raise InputError(f"rate: expected control steps a second, above 0, got {rate}")
        if Path(folder).exists():
            raise InputError(f"{folder}: exists, so it is not overwritten")
        self.environment, self.folder = environment, Path(folder)
        self._rate, self._task, self._film, self._robot = rate, task, film, robot
        self._observe, self._keep = observe, keep
        self._writer: Writer | None = None
        self._now: Mapping[str, Any] | None = None
        self._frames: list[dict[str, Any]] = []
        self._infos: list[Mapping[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name == "environment":  # not there yet
            raise AttributeError(name)
        return getattr(self.environment, name)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def episodes(self) -> int:
        """How many were written."""
        return 0 if self._writer is None else self._writer.episodes

    def reset(self, **how: Any) -> tuple[Any, Any]:
        """As the environment's; forgets an episode that has not ended."""
        obs, info = self.environment.reset(**how)
        self._now, self._frames, self._infos = self._observe(obs), [], []
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        """As the environment's.

        Raises:
            InputError: the episode ended and does not fit the first one, or its observations say no task.
        """
        if self._now is None:
            raise InputError("step: expected reset() before the first step of an episode")
        obs, reward, terminated, truncated, info = self.environment.step(action)
        ended = bool(terminated or truncated)
        done = {ACTION: np.asarray(action), REWARD: float(reward), DONE: ended, SUCCESS: is_success(info)}
        self._frames.append(dict(self._now) | done)
        self._infos.append(info)
        self._now = None if ended else self._observe(obs)
        if ended:
            frames, infos, self._frames, self._infos = self._frames, self._infos, [], []
            if self._keep(infos):
                self._write(frames)
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Move the folder into place, and close the environment."""
        if self._writer is not None:
            self._writer.close()
        self.environment.close()

    def _write(self, frames: list[dict[str, Any]]) -> None:
        tasks = [frame.pop(TASK, None) or self._task for frame in frames]
        if None in tasks:
            raise InputError(f"task: expected a text from the recorder's caller, or observations with {TASK!r}")
        for number, frame in enumerate(frames):
            frame.pop(TIMESTAMP, None)  # LeRobot's frames are evenly apart
            if frame.keys() != frames[0].keys():
                odd = ", ".join(sorted(frame.keys() ^ frames[0].keys()))
                raise InputError(
                    f"observation: expected the same keys in every frame, got others in frame {number}: {odd}"
                )
        values = {}
        for key in frames[0]:
            arrays = [np.asarray(frame[key]) for frame in frames]
            if len({array.shape for array in arrays}) > 1:
                raise InputError(f"{key}: expected one shape, got {sorted({array.shape for array in arrays})}")
            values[key] = np.stack(arrays).reshape(len(arrays), *(arrays[0].shape or (1,)))
        if values[ACTION].dtype.kind == "f":
            values[ACTION] = values[ACTION].astype(np.float32)
        if self._writer is None:
            features = {key: feature_of(array, self._film) for key, array in values.items()}
            self._writer = Writer(self.folder, self._rate, features, self._robot)
        self._writer.add(values, [str(task) for task in tasks])


class Drift:
    """Noise that pushes a demonstration off its way, step after step (DART, arXiv 1703.09327).

    What is done is the expert's action plus noise, what is learned is the expert's action without it, so that the
    states a policy strays into are among those it was taught about.

    dims: of an action. deviations: in the action's unit, one of them drawn for each episode.
    memory: share of the noise, in [0, 1), that lasts from one step to the next.
    """

    def __init__(self, rng: np.random.Generator, dims: int, deviations: Sequence[float], memory: float):
        self._rng, self._memory = rng, memory
        self._deviation, self._noise = rng.choice(deviations), np.zeros(dims)

    def next(self) -> np.ndarray:
        """What is added to the action of this step, float64 [dims]."""
        fresh = self._deviation * np.sqrt(1 - self._memory**2) * self._rng.normal(size=self._noise.shape)
        self._noise = self._memory * self._noise + fresh
        return self._noise


class Disturbed:
    """An environment in which something else is done than was told: with a `Recorder` around it, demonstrations have
    the expert's actions and the states that noise leads to.

    environment: a gymnasium.Env, whose other attributes this one has. drift: the noise of the episode of a seed.
    """

    def __init__(self, environment: Any, drift: Callable[[int], Drift]):
        self.environment, self._begin = environment, drift

    def __getattr__(self, name: str) -> Any:
        if name == "environment":  # not there yet
            raise AttributeError(name)
        return getattr(self.environment, name)

    def reset(self, *, seed: int, **how: Any) -> tuple[Any, Any]:
        """As the environment's, whose seed has to be said."""
        self._drift = self._begin(seed)
        return self.environment.reset(seed=seed, **how)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]:
        """As the environment's, with noise on the action."""
        return self.environment.step(action + self._drift.next())


def recorded_once(place: Path, record: Callable[[Path], None]) -> Path:
    """The folder `place`, made by `record` unless it is there; an interrupt leaves nothing.

    record: given a folder that is not there yet, beside `place`, it writes one.
    """
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        record(work / "new")
        (work / "new").rename(place)
    except OSError:
        if not place.is_dir():  # otherwise another process was first, with the same
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def feature_of(array: np.ndarray, film: bool) -> Feature:
    """What a key of arrays [t, …] is in a dataset. film: cameras as films, where their sides are even."""
    shape = array.shape[1:]
    if _is_picture(array[0]):
        even = shape[0] % 2 == 0 and shape[1] % 2 == 0
        return Feature(VIDEO if film and even else IMAGE, shape)
    return Feature("string" if array.dtype.kind == "U" else array.dtype.name, shape)


def any_success(infos: list[Mapping[str, Any]]) -> bool:
    """Whether any step of an episode succeeded: for demonstrations of what works."""
    return any(is_success(info) for info in infos)


def _is_picture(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
