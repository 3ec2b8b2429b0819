"""Observations of a robot, as they come, to a model's inputs: histories, ages, and what is absent."""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from perceiver.adapters.base import Adapter, host_array
from perceiver.adapters.frames import FramePair
from perceiver.adapters.image import Image
from perceiver.adapters.label import Label
from perceiver.adapters.state import State
from perceiver.adapters.text import Text
from perceiver.adapters.video import Video
from perceiver.config import suggestion
from perceiver.errors import ConfigError, InputError, naming
from perceiver.model import PerceiverConfig
from perceiver.robot import OBSERVATION, TIMESTAMP, Robot, Sensor

_SAME = 1e-6
"""Seconds below which two times are one."""


class Given(NamedTuple):
    """A model's inputs and masks, each with a batch axis of 1, and the names of the inputs that are absent."""

    inputs: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    absent: tuple[str, ...]


class Observations:
    """What a robot's sensors said lately, as the inputs of a model.

    An observation is a dict by LeRobot's names, of arrays without batch axis: "task" is a string,
    "observation.images.CAMERA" uint8 [h, w, c], other sensors what their input's `load` takes, states one vector
    [dims], or a number where that is 1. "timestamp" is the present in seconds; without it, each observation is one
    control step after the last. "KEY.timestamp" says when a sensor measured, on the same clock; without it, it measured
    now. A sensor that is missing or None said nothing new.

    A reading that is older than its sensor's `max_age` takes no part. In a history, the place of a reading says how
    many control steps ago it came, the newest place last; the places of steps without a reading are masked.

    Raises:
        ConfigError: the model's config has no `robot`.
    """

    def __init__(self, config: PerceiverConfig):
        self.robot = robot_of(config)
        self._sensors = {
            sensor.key: _Readings(name, config.inputs[name], sensor, self.robot.rate)
            for name, sensor in self.robot.sensors.items()
        }
        self.now: float | None = None

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self.now = None
        for sensor in self._sensors.values():
            sensor.kept.clear()

    def add(self, observation: Mapping[str, Any]) -> None:
        """Take what the sensors say.

        Raises:
            InputError: an unknown sensor, a value that does not fit, or a time before the last one; names the key. What
                was taken before stays as it was.
        """
        now = self._time(observation)
        for key in observation:
            sensor = key.removesuffix(f".{TIMESTAMP}")
            if key.startswith(OBSERVATION) and sensor not in self._sensors and sensor not in self.robot.ignored:
                raise InputError(f"observation[{key!r}]: no such sensor; {suggestion(key, self._sensors)}")
        new = {}
        for key, readings in self._sensors.items():
            if observation.get(key) is None:
                continue
            with naming(f"observation[{key!r}]"):
                new[key] = readings.read(observation[key], _stamp(observation, key, now))
        for key, reading in new.items():
            if reading is not None:
                self._sensors[key].kept.append(reading)
        self.now = now

    def given(self) -> Given:
        """The model's inputs at the time of the newest observation."""
        inputs, masks, missing = {}, {}, []
        for readings in self._sensors.values():
            raw, mask = readings.window(-math.inf if self.now is None else self.now)
            inputs[readings.name], masks[readings.name] = raw[None], mask[None]
            if not mask.any():
                missing.append(readings.name)
        return Given(inputs, masks, tuple(missing))

    def _time(self, observation: Mapping[str, Any]) -> float:
        if observation.get(TIMESTAMP) is None:
            return 0.0 if self.now is None else self.now + 1.0 / self.robot.rate
        now = _seconds(observation[TIMESTAMP], TIMESTAMP)
        if self.now is not None and now < self.now - _SAME:
            raise InputError(
                f"observation['{TIMESTAMP}']: expected {self.now} s, the last one, or later, got {now}; "
                "reset() begins a new episode"
            )
        return now


class _Reading(NamedTuple):
    """What a sensor said. time: seconds. raw, mask: as the adapter takes them. source: a text that they come from."""

    time: float
    raw: np.ndarray
    mask: np.ndarray
    source: str | None


class _Readings:
    """The newest readings of one sensor, as many as its input has places in time."""

    def __init__(self, name: str, adapter: Adapter, sensor: Sensor, rate: float):
        self.name, self.adapter, self.rate = name, adapter, rate
        self.places = history(adapter)
        self.max_age = self.places / rate if sensor.max_age is None else sensor.max_age
        self.empty, self.masked = absent(adapter)
        self.kept: collections.deque[_Reading] = collections.deque(maxlen=self.places)

    def read(self, value: Any, time: float) -> _Reading | None:
        """A reading, or None for one that is known already."""
        last = self.kept[-1] if self.kept else None
        if last is not None and time <= last.time + _SAME:
            return None
        if isinstance(self.adapter, Text):
            if last is not None and value == last.source:
                return last._replace(time=time)
            return _Reading(time, *self.adapter.load(value), source=value)
        array = host_array(value)
        if isinstance(self.adapter, State | Video):
            inner = self.empty.shape[1:]
            array = array.reshape(1) if inner == (1,) and array.shape == () else array  # as LeRobot's folders have it
            if array.shape != inner:
                raise InputError(f"expected shape {inner}, got {array.shape}")
            return _Reading(time, self.adapter.load(array[None])[0][0], np.ones((), bool), None)
        raw, mask = self.adapter.load(array)
        mask = np.ones(self.masked.shape, bool) if mask is None else mask
        if raw.shape != self.empty.shape or mask.shape != self.masked.shape:
            expected = f"{self.empty.shape} and a mask {self.masked.shape}"
            raise InputError(f"expected {expected} of the adapter's load, got {raw.shape} and {mask.shape}")
        return _Reading(time, raw, mask, None)

    def window(self, now: float) -> tuple[np.ndarray, np.ndarray]:
        """What is young enough, in its places; zeros elsewhere."""
        raw, mask = self.empty.copy(), self.masked.copy()
        for reading in self.kept:  # the oldest first, so that of two in one place the newer stays
            age = now - reading.time
            if age > self.max_age + _SAME:
                continue
            if not isinstance(self.adapter, State | Video):
                return reading.raw, reading.mask
            place = self.places - 1 - (round(age * self.rate) if self.places > 1 else 0)
            if place >= 0:
                raw[place], mask[place] = reading.raw, True
        return raw, mask


def absent(adapter: Adapter) -> tuple[np.ndarray, np.ndarray]:
    """An input that is not there, zeros, and its mask, all False; without batch axis."""
    example = adapter.example(1)
    whole = isinstance(adapter, Image | FramePair | Label)  # which is there or not, and has no mask of its own
    empty = np.zeros(example.shape[1:], example.dtype)
    return empty, np.zeros(() if whole else empty.shape[:1], bool)


def robot_of(config: PerceiverConfig) -> Robot:
    """The control loop that a model is made for.

    Raises:
        ConfigError: the config says nothing of one.
    """
    if config.robot is None:
        raise ConfigError(
            "PerceiverConfig.robot: expected a Robot, which says what the observations are called, got none"
        )
    return config.robot


def history(adapter: Adapter) -> int:
    """Places in time that an input has: of states and clips, 1 otherwise."""
    if isinstance(adapter, State):
        return adapter.history
    return adapter.shape[0] if isinstance(adapter, Video) else 1


def _stamp(observation: Mapping[str, Any], key: str, now: float) -> float:
    """When a sensor measured."""
    given = observation.get(f"{key}.{TIMESTAMP}")
    if given is None:
        return now
    time = _seconds(given, f"{key}.{TIMESTAMP}")
    if time > now + _SAME:
        raise InputError(f"expected a time up to the present, {now} s, got {time}")
    return min(time, now)


def _seconds(value: Any, key: str) -> float:
    time = host_array(value)
    if time.size != 1 or time.dtype.kind not in "fiu" or not np.isfinite(time).all():
        raise InputError(f"observation[{key!r}]: expected finite seconds, got {value!r:.60}")
    return float(time.reshape(()))
