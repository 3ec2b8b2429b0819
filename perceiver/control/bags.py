"""Recordings of ROS (rosbag2 in SQLite or MCAP, or ROS 1's .bag) as a LeRobotDataset v3 folder, without ROS.

Topics tick each at its own rate; the frames of a dataset are evenly apart. A frame has of each sensor the newest
message of its time or before it, never one to come, and of each action the first one of its time or after it: what was
commanded when the sensors said so. Where a topic is silent for longer than a gap, the episode ends there and another
begins.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perceiver.config import from_json, suggestion
from perceiver.control.lerobot import Feature, Writer
from perceiver.control.messages import Topic, seconds_of, value_of
from perceiver.control.recording import feature_of
from perceiver.errors import ConfigError, InputError, naming, require
from perceiver.io.files import refusing
from perceiver.robot import OBSERVATION, TASK
from perceiver.saving import read_json

ACTION = "action"
SHORTEST = 2
"""Frames of an episode at least."""


@dataclasses.dataclass(frozen=True)
class Import:
    """What becomes of a recording.

    rate: frames a second. topics: by LeRobot's keys, "observation.…", "action" or "action.…", and "task" where a topic
    says in words what is to be done. task: what is to be done, where none does.
    gap: seconds of silence of a topic that end an episode. film: cameras as films, smaller and not exact, rather than
    as lossless pictures. robot: what was recorded.
    """

    rate: float
    topics: Mapping[str, Topic]
    task: str | None = None
    gap: float = 0.5
    film: bool = False
    robot: str | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "gap"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigError(f"Import.{name}: expected a number above 0, got {getattr(self, name)}")
        for key in self.topics:
            if key != TASK and not key.startswith(OBSERVATION) and not _is_action(key):
                raise ConfigError(f"Import.topics: expected {OBSERVATION}…, {ACTION} or {TASK}, got {key!r}")
        if not any(map(_is_action, self.topics)) or not any(key.startswith(OBSERVATION) for key in self.topics):
            raise ConfigError(f"Import.topics: expected an observation and an action, got {', '.join(self.topics)}")
        if (self.task is None) == (TASK not in self.topics):
            raise ConfigError("Import.task: expected either a text, or a topic for it, and not both")


class Imported(NamedTuple):
    """How much was written."""

    episodes: int
    frames: int


def read_import(path: str | Path) -> Import:
    """An `Import` out of a JSON file: {"type": "Import", "rate": 10, "topics": {KEY: {"type": "Topic", …}}, …}.

    Raises:
        InputError, ConfigError: it cannot be read; names the file and the field.
    """
    return from_json(read_json(Path(path)), Import, [Import, Topic], where=str(path))


def topics_of(bag: str | Path) -> dict[str, tuple[str, int]]:
    """The topics of a recording: the type of their messages, and how many there are.

    Raises:
        InputError: it cannot be read. MissingExtraError: rosbags is not installed.
    """
    with _opened(bag) as reader:
        return {name: (str(topic.msgtype), topic.msgcount) for name, topic in sorted(reader.topics.items())}


def import_bags(bags: Sequence[str | Path], folder: str | Path, how: Import) -> Imported:
    """Write recordings as one dataset. What is used of one recording is held in memory. Needs `rosbags` and `lerobot`.

    bags: folders of rosbag2, .mcap files, or .bag files of ROS 1. folder: where; nothing may be there.

    Raises:
        InputError: a recording cannot be read, lacks a topic or a field, or has no time at which all topics speak;
            names the recording. MissingExtraError: a package is not installed.
    """
    with contextlib.ExitStack() as stack:
        writer: Writer | None = None
        for bag in bags:
            before = 0 if writer is None else writer.episodes
            for values, tasks in episodes(bag, how):
                if writer is None:
                    writer = stack.enter_context(Writer(folder, how.rate, _features(values, how), how.robot))
                with naming(str(bag)):
                    writer.add(values, tasks)
            if writer is None or writer.episodes == before:
                raise InputError(f"{bag}: expected a time at which all topics speak, there is none; see Import.gap")
        if writer is None:
            raise InputError("bags: expected at least one recording, got none")
        return Imported(writer.episodes, writer.frames)


def episodes(bag: str | Path, how: Import) -> Iterator[tuple[dict[str, np.ndarray], list[str]]]:
    """The episodes of one recording: arrays [t, …] by key, and what was to be done at each frame."""
    with _opened(bag) as reader, naming(str(bag)):
        missing = [topic.topic for topic in how.topics.values() if topic.topic not in reader.topics]
        if missing:
            raise InputError(f"no topic {missing[0]!r}; {suggestion(missing[0], reader.topics)}")
        times = {key: _times(reader, topic) for key, topic in how.topics.items()}
        silent = [key for key, array in times.items() if not len(array)]
        if silent:
            raise InputError(f"{silent[0]}: expected messages, got none on {how.topics[silent[0]].topic}")
        runs = _runs(times, how)
        used = {key: np.unique(np.concatenate([run[key] for run in runs])) for key in how.topics} if runs else {}
        found = {key: _values(reader, how.topics[key], places) for key, places in used.items()}
    for run in runs:
        rows = {key: [found[key][place] for place in places.tolist()] for key, places in run.items()}
        length = len(next(iter(rows.values())))
        tasks = rows.pop(TASK, [how.task] * length)
        with naming(str(bag)):
            yield {key: _stacked(key, parts) for key, parts in rows.items()}, [str(task) for task in tasks]


@contextlib.contextmanager
def _opened(bag: str | Path) -> Iterator[Any]:
    highlevel, typesys = require("rosbags.highlevel", "rosbags"), require("rosbags.typesys", "rosbags")
    with naming(str(bag)), refusing("a recording of ROS"):
        # Old recordings say nothing of their messages' forms; the common ones have been the same for years.
        known = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        reader = highlevel.AnyReader([Path(bag)], default_typestore=known)
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


class _Packed(NamedTuple):
    """A message as it was recorded."""

    seconds: float
    raw: bytes
    kind: str


def _messages(reader: Any, topic: Topic) -> Iterator[_Packed]:
    """The messages of a topic, in the order of the recording."""
    connections = [connection for connection in reader.connections if connection.topic == topic.topic]
    with refusing("messages of ROS"):
        for connection, nanoseconds, raw in reader.messages(connections=connections):
            yield _Packed(1e-9 * nanoseconds, raw, connection.msgtype)


def _read(reader: Any, packed: _Packed) -> Any:
    with refusing(f"a message {packed.kind}"):
        return reader.deserialize(packed.raw, packed.kind)


def _times(reader: Any, topic: Topic) -> np.ndarray:
    """Seconds of each message of a topic, in the order of the recording."""
    found = [seconds_of(_read(reader, m)) if topic.stamped else m.seconds for m in _messages(reader, topic)]
    return np.asarray(found, np.float64)


def _values(reader: Any, topic: Topic, places: np.ndarray) -> dict[int, np.ndarray | str]:
    """What the messages at some places of a topic say."""
    wanted = set(places.tolist())
    return {
        place: value_of(_read(reader, packed), topic)
        for place, packed in enumerate(_messages(reader, topic))
        if place in wanted
    }


def _runs(times: Mapping[str, np.ndarray], how: Import) -> list[dict[str, np.ndarray]]:
    """For each episode, which message of each key every frame has."""
    start = min(array.min() for array in times.values())
    count = math.floor((max(array.max() for array in times.values()) - start) * how.rate) + 1
    frames = start + np.arange(count) / how.rate
    chosen, fine = {}, np.ones(count, bool)
    for key, array in times.items():
        chosen[key], known = _chosen(key, array, frames, how)
        fine &= known
    edges = np.flatnonzero(np.diff(np.concatenate([[False], fine, [False]]).astype(np.int8)))
    spans = [slice(a, b) for a, b in edges.reshape(-1, 2) if b - a >= SHORTEST]
    return [{key: places[span] for key, places in chosen.items()} for span in spans]


def _chosen(key: str, times: np.ndarray, frames: np.ndarray, how: Import) -> tuple[np.ndarray, np.ndarray]:
    """The place of a message for each frame, and whether there is one near enough."""
    order = np.argsort(times, kind="stable")
    ordered, near = times[order], 1e-6
    if _is_action(key):
        place = np.searchsorted(ordered, frames - near, side="left")
    else:
        place = np.searchsorted(ordered, frames + near, side="right") - 1
    inside = np.clip(place, 0, len(times) - 1)
    known = (place == inside) & ((np.abs(ordered[inside] - frames) <= how.gap) | (key == TASK))
    return order[inside], known


def _stacked(key: str, parts: list[Any]) -> np.ndarray:
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1 or isinstance(parts[0], str):
        kinds = "text" if isinstance(parts[0], str) else ", ".join(map(str, sorted(shapes)))
        raise InputError(f"{key}: expected arrays of one shape, got {kinds}")
    return np.stack(parts)


def _features(values: Mapping[str, np.ndarray], how: Import) -> dict[str, Feature]:
    features = {key: feature_of(array, how.film) for key, array in values.items()}
    for key, feature in features.items():
        names = how.topics[key].names
        if names and feature.shape == (len(names),):
            features[key] = dataclasses.replace(feature, names=names)
    return features


def _is_action(key: str) -> bool:
    return key == ACTION or key.startswith(f"{ACTION}.")
