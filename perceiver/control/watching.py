"""A rollout to look at while it goes, or afterwards: what the sensors say and what the policy does, shown by rerun.

Needs the extra `viz`. A recording is a .rrd file for the viewer, `rerun FILE`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.control.rollout import Drawing, Policy
from perceiver.errors import InputError, require
from perceiver.robot import OBSERVATION, TASK, TIMESTAMP

POLICY, EXPERT = "policy", "expert"
SILENCE = 1e-5
"""Of sound: what counts as silence, -100 dB of the loudest."""


def recording(path: str | Path | None = None, *, live: bool = False, name: str = "perceiver") -> Any:
    """Where to show things: a file, a viewer that is started, or both; a `rerun.RecordingStream`.

    Closing is its `disconnect`, which `Watched.close` calls. name: what the viewer calls it.

    Raises:
        InputError: neither is wanted, or the file cannot be written. MissingExtraError: rerun is not installed.
    """
    rerun = require("rerun", "viz")
    if path is None and not live:
        raise InputError("recording: expected a file, or live=True")
    stream = rerun.RecordingStream(name)
    if path is not None:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).open("wb").close()
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    if live:
        stream.spawn(connect=path is None)
    if path is not None:
        stream.set_sinks(rerun.FileSink(path), *([rerun.GrpcSink()] if live else []))
    return stream


class Watched:
    """A policy of which everything is shown: pictures, points, sounds' levels, numbers, words, actions and latency.

    It answers as the policy inside; see `perceiver.control.rollout.Policy`. Timelines are "step", over all episodes,
    and "time", seconds since the first step of each episode; "episode" counts them.

    policy: what drives. stream: from `recording`. expert: whose actions are shown beside the policy's, without being
    done. rate: control steps a second. names: of the numbers of an action.
    """

    def __init__(
        self,
        policy: Policy,
        stream: Any,
        *,
        expert: Policy | None = None,
        rate: float = 10.0,
        names: Sequence[str] = (),
    ):
        self._rerun = require("rerun", "viz")
        self.policy, self._stream, self._expert = policy, stream, expert
        self._rate, self._names = rate, tuple(names)
        self._step, self._begun, self._episode = 0, 0, -1
        self._arranged, self._said = False, ""

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left; the file is then whole."""
        self._stream.flush()
        self._stream.disconnect()

    def seed(self, episode: int) -> None:
        """See Drawing: for a policy that draws."""
        for one in (self.policy, self._expert):
            if isinstance(one, Drawing):
                one.seed(episode)

    def reset(self) -> None:
        """A new episode begins."""
        self.policy.reset()
        if self._expert is not None:
            self._expert.reset()
        self._episode += 1
        self._begun, self._said = self._step, ""

    def infer(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The policy's answer, shown with all that it was given."""
        if not self._arranged:
            self._arranged = True
            self._stream.send_blueprint(blueprint(obs))
        expected = None if self._expert is None else self._expert.infer(obs)["actions"]
        started = time.perf_counter()
        answer = self.policy.infer(obs)
        took = 1e3 * (time.perf_counter() - started)
        self._stream.set_time("step", sequence=self._step)
        self._stream.set_time("time", duration=(self._step - self._begun) / self._rate)
        self._numbers("episode", [max(self._episode, 0)])
        self._numbers("latency_ms", [took])
        self._actions(POLICY, answer["actions"])
        if expected is not None:
            self._actions(EXPERT, expected)
        self._show(obs)
        why = answer.get("fallback")
        if why:
            self._stream.log("log", self._rerun.TextLog(f"fallback: {getattr(why, 'value', why)}", level="WARN"))
        self._step += 1
        return answer

    def _show(self, obs: Mapping[str, Any]) -> None:
        for key, value in obs.items():
            if value is None or key == TIMESTAMP or key.endswith(f".{TIMESTAMP}"):
                continue
            if key == TASK:
                if value != self._said:
                    self._said = value
                    self._stream.log("log", self._rerun.TextLog(str(value), level="INFO"))
            elif key.startswith(OBSERVATION):
                self._sensor(place(key), np.asarray(value))

    def _sensor(self, entity: str, array: np.ndarray) -> None:
        rerun = self._rerun
        if is_picture(array):
            self._stream.log(entity, rerun.Image(array))
        elif is_cloud(entity, array):
            finite = array[np.isfinite(array).all(axis=1)]
            shade = None if finite.shape[1] < 4 else shades(finite[:, 3])
            self._stream.log(entity, rerun.Points3D(finite[:, :3], colors=shade, radii=rerun.Radius.ui_points(2.0)))
        elif is_sound(entity):
            self._numbers(f"{entity}/level_db", [level(array)])
        elif array.dtype.kind in "biuf":
            self._numbers(entity, array.ravel().astype(np.float64))

    def _actions(self, who: str, actions: np.ndarray) -> None:
        """The action that is done now, number by number, so that those of policy and expert share a plot."""
        for number, value in enumerate(np.asarray(actions)[0].ravel().tolist()):
            name = self._names[number] if number < len(self._names) else str(number)
            self._numbers(f"action/{name}/{who}", [value])

    def _numbers(self, entity: str, values: Any) -> None:
        self._stream.log(entity, self._rerun.Scalars(values))


def blueprint(obs: Mapping[str, Any]) -> Any:
    """What the viewer shows where: pictures and points above, curves below."""
    views = require("rerun.blueprint", "viz")
    arrays = {place(key): np.asarray(value) for key, value in obs.items() if key.startswith(OBSERVATION)}
    above = [views.Spatial2DView(origin=name, name=name) for name, array in arrays.items() if is_picture(array)]
    above += [views.Spatial3DView(origin=name, name=name) for name, array in arrays.items() if is_cloud(name, array)]
    below = [views.TimeSeriesView(origin="action", name="actions"), views.TimeSeriesView(origin="latency_ms")]
    if any(map(is_sound, arrays)):
        below.append(views.TimeSeriesView(origin="observation/audio", name="loudness, dB"))
    below.append(views.TextLogView(origin="log", name="task and fallbacks"))
    rows = [views.Horizontal(*above)] if above else []
    return views.Blueprint(views.Vertical(*rows, views.Horizontal(*below)))


def place(key: str) -> str:
    """A key as a path of the viewer: "observation.images.wrist" is observation/images/wrist."""
    return key.replace(".", "/")


def is_picture(array: np.ndarray) -> bool:
    """Whether it is uint8 [h, w, 3]."""
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def is_cloud(entity: str, array: np.ndarray) -> bool:
    """Whether it is points [n, 3 or more] under a key of points."""
    return entity.startswith("observation/points") and array.ndim == 2 and array.shape[1] >= 3


def is_sound(entity: str) -> bool:
    """Whether a key is that of a microphone."""
    return entity.startswith("observation/audio")


def level(wave: np.ndarray) -> float:
    """The loudness of a sound in [-1, 1]: its root mean square, in decibels of the loudest."""
    return float(20.0 * np.log10(max(float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))), SILENCE)))


def shades(intensities: np.ndarray) -> np.ndarray:
    """Intensities as uint8 greys [n, 3], the lowest dark and the highest white."""
    low, high = float(intensities.min(initial=0.0)), float(intensities.max(initial=1.0))
    grey = 55 + 200 * (intensities - low) / max(high - low, 1e-9)
    return np.repeat(grey.astype(np.uint8)[:, None], 3, axis=1)
