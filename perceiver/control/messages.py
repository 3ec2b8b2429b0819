"""ROS messages as arrays: pictures, clouds, scans, and numbers out of any other message.

Messages are what the package `rosbags` reads; their forms are those of
https://docs.ros.org/en/jazzy/p/sensor_msgs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from perceiver.adapters.points import thin
from perceiver.errors import ConfigError, InputError, naming
from perceiver.io.images import decode_image

CHANNELS = {"rgb8": (0, 1, 2), "rgba8": (0, 1, 2), "bgr8": (2, 1, 0), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
"""Which channels of an encoding are red, green and blue."""
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""sensor_msgs/PointField.datatype."""


@dataclasses.dataclass(frozen=True)
class Topic:
    """Where the values of a key come from.

    topic: such as "/joint_states".
    fields: what to take of a message, such as "position" or "twist.linear.x", one behind the other; of a PointCloud2
        the fields of a point. Pictures are taken whole and need none; a LaserScan gives "ranges" unless told otherwise.
    names: of a message with names, such as a JointState, which ones to take, in this order; else just what to call the
        numbers.
    budget: points of each cloud: of more a fixed random choice is taken, of fewer some stand there again.
    stamped: a message belongs to the time in its header, rather than to that at which it was recorded.
    """

    topic: str
    fields: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    budget: int | None = None
    stamped: bool = False

    def __post_init__(self) -> None:
        if not self.topic.startswith("/"):
            raise ConfigError(f"Topic.topic: expected a name that begins with /, got {self.topic!r}")
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"Topic.budget: expected at least 1 point, got {self.budget}")


def value_of(message: Any, topic: Topic) -> np.ndarray | str:
    """What a message says: uint8 [h, w, 3] of a picture, float32 [budget, k] of a cloud, else float32 [n] or text.

    Raises:
        InputError: the message does not have what the topic asks for; names the topic and the field.
    """
    read = READERS.get(message.__msgtype__, _numbers)
    with naming(topic.topic):
        return read(message, topic)


def seconds_of(message: Any) -> float:
    """The time in a message's header.

    Raises:
        InputError: it has none.
    """
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    if stamp is None:
        raise InputError(f"expected a header with a stamp, which {message.__msgtype__} does not have")
    return stamp.sec + 1e-9 * stamp.nanosec


def _picture(message: Any, topic: Topic) -> np.ndarray:
    if message.encoding not in CHANNELS:
        raise InputError(f"encoding: expected {', '.join(CHANNELS)}, got {message.encoding!r:.40}")
    height, width, step = message.height, message.width, message.step
    channels = 1 if message.encoding == "mono8" else len(message.encoding) - 1
    if not height or not width or step < width * channels or len(message.data) < height * step:
        raise InputError(f"expected {height} rows of {step} bytes for {width} pixels, got {len(message.data)} bytes")
    rows = np.asarray(message.data, np.uint8)[: height * step].reshape(height, step)[:, : width * channels]
    return rows.reshape(height, width, channels)[..., list(CHANNELS[message.encoding])]


def _compressed(message: Any, topic: Topic) -> np.ndarray:
    return decode_image(bytes(message.data), channels=3)


def _cloud(message: Any, topic: Topic) -> np.ndarray:
    if topic.budget is None or not topic.fields:
        raise InputError("a cloud needs a budget and the fields of a point, such as x, y, z and intensity")
    own = {field.name: field for field in message.fields}
    for name in topic.fields:
        if name not in own or own[name].datatype not in NUMBERS:
            raise InputError(f"fields: expected numbers called {name!r}, got {', '.join(sorted(own))}")
    count, size = message.height * message.width, message.point_step
    order = ">" if message.is_bigendian else "<"
    formats = [order + NUMBERS[own[name].datatype] for name in topic.fields]
    offsets = [own[name].offset for name in topic.fields]
    ends = [offset + np.dtype(kind).itemsize for offset, kind in zip(offsets, formats, strict=True)]
    padding = message.row_step - message.width * size
    if max(ends) > size or padding < 0 or len(message.data) < message.height * message.row_step:
        raise InputError(f"expected {count} points of {size} bytes, got {len(message.data)} bytes")
    row = np.dtype({"names": list(topic.fields), "formats": formats, "offsets": offsets, "itemsize": size})
    lines = np.asarray(message.data, np.uint8)[: message.height * message.row_step].reshape(message.height, -1)
    points = np.ascontiguousarray(lines[:, : message.width * size]).view(row).reshape(-1)
    cloud = np.stack([points[name].astype(np.float32) for name in topic.fields], axis=1)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    if not len(cloud):
        raise InputError("expected at least one point with finite numbers, got none")
    chosen = thin(cloud, topic.budget, np.random.default_rng(0))
    return np.resize(chosen, (topic.budget, cloud.shape[1]))  # which repeats rows


def _scan(message: Any, topic: Topic) -> np.ndarray:
    """A ray without an echo is as long as the sensor sees."""
    numbers = _numbers(message, topic if topic.fields else dataclasses.replace(topic, fields=("ranges",)))
    return np.where(np.isfinite(numbers), numbers, np.float32(message.range_max))


def _numbers(message: Any, topic: Topic) -> np.ndarray | str:
    if not topic.fields:
        raise InputError(f"fields: expected what to take of {message.__msgtype__}, got none")
    found = [_field(message, path) for path in topic.fields]
    if len(found) == 1 and isinstance(found[0], str):
        return found[0]
    parts = []
    for path, value in zip(topic.fields, found, strict=True):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise InputError(f"{path}: expected numbers, got {array.dtype}")
        parts.append(_named(message, topic, path, np.atleast_1d(array.astype(np.float32)).ravel()))
    return np.concatenate(parts)


def _named(message: Any, topic: Topic, path: str, numbers: np.ndarray) -> np.ndarray:
    """The numbers of the asked names, where a message has names, which may come in any order."""
    own = getattr(message, "name", None)
    if not topic.names or not isinstance(own, list):
        return numbers
    missing = [name for name in topic.names if name not in own]
    if missing or len(numbers) != len(own):
        raise InputError(f"{path}: expected {', '.join(topic.names)}, got {len(numbers)} numbers of {', '.join(own)}")
    return numbers[[own.index(name) for name in topic.names]]


def _field(message: Any, path: str) -> Any:
    value = message
    for part in path.split("."):
        if not dataclasses.is_dataclass(value) or part not in value.__dataclass_fields__:
            fields = getattr(value, "__dataclass_fields__", {})
            raise InputError(f"{path}: no field {part!r}; known: {', '.join(fields) or 'none'}")
        value = getattr(value, part)
    return value


READERS: dict[str, Callable[[Any, Topic], np.ndarray | str]] = {
    "sensor_msgs/msg/Image": _picture,
    "sensor_msgs/msg/CompressedImage": _compressed,
    "sensor_msgs/msg/PointCloud2": _cloud,
    "sensor_msgs/msg/LaserScan": _scan,
}
