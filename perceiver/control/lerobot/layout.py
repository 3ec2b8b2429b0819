"""What lies where in a LeRobotDataset v3 folder, and what its info.json says.

meta/info.json and stats.json; meta/tasks.parquet; meta/episodes, one row an episode; data, one row a frame; videos, for
each camera the episodes one after another. Source: https://huggingface.co/docs/lerobot/lerobot-dataset-v3 and lerobot
0.4.4, which wrote what the tests read.
"""

import dataclasses
import math
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver.errors import InputError
from perceiver.saving import read_json

VERSION = "v3.0"
INFO, STATISTICS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
NUMBERED = {"chunk_index": r"(0?\d)?d?", "file_index": r"(0?\d)?d?"}
"""The fields of a name that is printed with numbers, and how they may be printed: with nine digits at most."""
FILES_PER_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
"""Files in a folder, and sizes from which on the next file begins; lerobot's own."""

IMAGE, VIDEO, STRING = "image", "video", "string"
"""Kinds of values beside numpy's: pictures as PNG in the rows, as frames of a film, and text."""
NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Feature:
    """What a frame has under one key.

    dtype: one of numpy's numbers, such as "float32"; or IMAGE (lossless), VIDEO, STRING.
    shape: (1,) for a single number; pictures (h, w, 3).
    names: of the numbers of a vector, or None.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in (*NUMBERS, IMAGE, VIDEO, STRING):
            raise InputError(
                f"dtype: expected one of {', '.join((*NUMBERS, IMAGE, VIDEO, STRING))}, got {self.dtype!r}"
            )
        if not 1 <= len(self.shape) <= 5 or any(type(size) is not int or size < 1 for size in self.shape):
            raise InputError(f"shape: expected 1 to 5 sizes of at least 1, got {self.shape}")
        if self.picture and (len(self.shape) != 3 or self.shape[2] != 3):
            raise InputError(f"shape: expected (height, width, 3) of a picture, got {self.shape}")

    @property
    def picture(self) -> bool:
        """Whether it is a camera's."""
        return self.dtype in (IMAGE, VIDEO)


OWN = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""What every frame has: seconds since its episode began, its numbers within episode and dataset, and what was to do."""


@dataclasses.dataclass(frozen=True)
class Info:
    """What info.json says.

    rate: frames a second. features: by key, the ones that every frame has included. episodes, frames: how many.
    robot: what was recorded, or None. data_path, video_path: patterns of file names.
    """

    rate: float
    features: Mapping[str, Feature]
    episodes: int
    frames: int
    robot: str | None = None
    data_path: str = DATA
    video_path: str | None = VIDEOS

    @property
    def cameras(self) -> tuple[str, ...]:
        """The keys of pictures."""
        return tuple(key for key, feature in self.features.items() if feature.picture)


def read_info(folder: Path) -> Info:
    """Read meta/info.json.

    Raises:
        InputError: absent, another version, or of another form; names the file and the field.
    """
    path = folder / INFO
    tree = read_json(path)
    if not isinstance(tree, dict) or tree.get("codebase_version") != VERSION:
        version = tree.get("codebase_version") if isinstance(tree, dict) else tree
        raise InputError(f"{path}: codebase_version: expected {VERSION!r}, got {version!r:.60}")
    rate, features = tree.get("fps"), tree.get("features")
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < math.inf:
        raise InputError(f"{path}: fps: expected frames a second, above 0, got {rate!r:.60}")
    if not isinstance(features, dict):
        raise InputError(f"{path}: features: expected an object, got {features!r:.60}")
    for name in ("total_episodes", "total_frames"):
        if type(tree.get(name)) is not int or tree[name] < 0:
            raise InputError(f"{path}: {name}: expected a whole number, got {tree.get(name)!r:.60}")
    _check_pattern(tree.get("data_path"), f"{path}: data_path", NUMBERED)
    if tree.get("video_path") is not None:
        _check_pattern(tree["video_path"], f"{path}: video_path", NUMBERED | {"video_key": ""})
    return Info(
        float(rate),
        {key: _feature(key, entry, path) for key, entry in features.items()} | OWN,
        tree["total_episodes"],
        tree["total_frames"],
        tree.get("robot_type"),
        tree["data_path"],
        tree.get("video_path"),
    )


def info_tree(info: Info, tasks: int, films: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What to write into info.json. films: about the video of each camera."""
    features: dict[str, dict[str, Any]] = {}
    for key, feature in info.features.items():
        names = ["height", "width", "channels"] if feature.picture else feature.names and list(feature.names)
        features[key] = {"dtype": feature.dtype, "shape": list(feature.shape), "names": names}
        if key in films:
            features[key]["info"] = dict(films[key])
    return {
        "codebase_version": VERSION,
        "robot_type": info.robot,
        "total_episodes": info.episodes,
        "total_frames": info.frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": int(info.rate) if info.rate.is_integer() else info.rate,
        "splits": {"train": f"0:{info.episodes}"},
        "data_path": info.data_path,
        "video_path": info.video_path if films else None,
        "features": features,
    }


def place(pattern: str, number: int, key: str = "") -> str:
    """The name of file `number` of a kind."""
    chunk, file = divmod(number, FILES_PER_CHUNK)
    return pattern.format(chunk_index=chunk, file_index=file, video_key=key)


def check_key(key: str) -> None:
    """A key may be a folder's name.

    Raises:
        InputError: it leads somewhere else.
    """
    if not key or "/" in key or "\\" in key or key in (".", "..") or "\0" in key:
        raise InputError(f"features: expected keys without slashes, got {key!r:.80}")


def _feature(key: str, entry: Any, path: Path) -> Feature:
    check_key(key)
    try:
        shape, names = tuple(entry["shape"]), entry.get("names")
        if isinstance(names, dict):  # {"motors": ["shoulder", …]}
            names = [name for part in names.values() for name in (part if isinstance(part, list) else [part])]
        if entry["dtype"] in (IMAGE, VIDEO) and names and str(names[0]).startswith("channel"):
            shape = (*shape[1:], shape[0])
        return Feature(entry["dtype"], shape, None if not names else tuple(map(str, names)))
    except InputError as error:
        raise InputError(f"{path}: features[{key!r}]: {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: features[{key!r}]: expected dtype, shape and names, got {entry!r:.80}") from None


def _check_pattern(pattern: Any, where: str, fields: Mapping[str, str]) -> None:
    """A pattern may name nothing but these fields, each printed as its regular expression says, and no place outside of
    the folder.
    """
    try:
        parts = list(string.Formatter().parse(pattern))
    except (TypeError, ValueError):  # no text, or braces without their partner
        parts = [("", "?", "", None)]
    strange = [
        name
        for _, name, printed, changed in parts
        if name is not None and (changed or name not in fields or not re.fullmatch(fields[name], printed or ""))
    ]
    if strange or pattern.startswith("/") or ".." in Path(pattern).parts or "\0" in pattern:
        few = ", ".join(f"{{{name}}}" for name in fields)
        raise InputError(f"{where}: expected a path in the folder, of {few}, numbers as 3d or 03d, got {pattern!r:.80}")
