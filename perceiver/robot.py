"""What a control loop gives a model and takes from it: a declaration, saved with the model as preprocessing."""

import dataclasses
import math
from collections.abc import Mapping

from perceiver.config import freeze
from perceiver.errors import ConfigError

TASK, OBSERVATION, TIMESTAMP = "task", "observation.", "timestamp"
"""LeRobot's names: what to do in words, the beginning of every sensor's key, and seconds since the episode began."""


@dataclasses.dataclass(frozen=True)
class Sensor:
    """Where an input comes from.

    key: in the observation dict: "task", or "observation." and a name, such as "observation.images.wrist".
    max_age: seconds; an older reading is an absent input, never an old one. None allows as many control steps as the
        input has a history, which is one for most.
    """

    key: str
    max_age: float | None = None

    def __post_init__(self) -> None:
        if self.key != TASK and not (self.key.startswith(OBSERVATION) and len(self.key) > len(OBSERVATION)):
            raise ConfigError(f"Sensor.key: expected {TASK!r} or {OBSERVATION!r} and a name, got {self.key!r}")
        if self.max_age is not None and not 0.0 <= self.max_age < math.inf:
            raise ConfigError(f"Sensor.max_age: expected seconds, 0 or more, got {self.max_age}")


@dataclasses.dataclass(frozen=True)
class Robot:
    """A control loop, as a model sees it.

    rate: control steps a second. The places of a history, and the actions of a chunk, are one step apart.
    sensors: by the name of the model's input. action: the output that gives the actions.
    ignored: keys of observations that the model has no use for; any other unknown sensor is an error.
    """

    rate: float
    sensors: Mapping[str, Sensor]
    action: str = "action"
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < math.inf:
            raise ConfigError(f"Robot.rate: expected control steps a second, above 0, got {self.rate}")
        keys = [sensor.key for sensor in self.sensors.values()]
        if not keys or len(set(keys)) < len(keys):
            raise ConfigError(f"Robot.sensors: expected at least one, each with a key of its own, got {keys}")
        object.__setattr__(self, "sensors", freeze(self.sensors))
