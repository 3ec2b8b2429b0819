"""Reading a LeRobotDataset v3 folder, episode by episode."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from perceiver.config import suggestion
from perceiver.control.lerobot import layout
from perceiver.control.lerobot.layout import IMAGE, VIDEO, Feature, read_info
from perceiver.control.lerobot.statistics import Statistics
from perceiver.errors import InputError, naming, require
from perceiver.io.files import existing_file, refusing
from perceiver.io.images import decode_image
from perceiver.io.video import read_video
from perceiver.robot import OBSERVATION, TASK, TIMESTAMP
from perceiver.saving import read_json


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """One recorded episode of t frames.

    Attributes:
        index: its number in the dataset.
        tasks: what was to do at each frame, in words.
        values: arrays [t, *shape] by key, single numbers [t], pictures uint8 [t, h, w, 3], text as objects.
    """

    index: int
    tasks: tuple[str, ...]
    values: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tasks)

    def observation(self, step: int) -> dict[str, Any]:
        """What a policy would have been given at a frame: sensors, "task" and "timestamp"."""
        seen = {key: array[step] for key, array in self.values.items() if key.startswith(OBSERVATION)}
        return seen | {TASK: self.tasks[step], TIMESTAMP: float(self.values[TIMESTAMP][step])}

    def chunk(self, step: int, horizon: int, key: str = "action") -> tuple[np.ndarray, np.ndarray]:
        """The actions from a frame on.

        Returns:
            float32 [horizon, dims], the last one again behind the end; and bool [horizon], True for those behind the
            end, LeRobot's `action_is_pad`.

        Raises:
            InputError: no such key; or a frame outside of the episode.
        """
        if key not in self.values:
            raise InputError(f"episode {self.index}: no {key!r}; {suggestion(key, self.values)}")
        if not 0 <= step < len(self):
            raise InputError(f"episode {self.index}: expected a frame from 0 to {len(self) - 1}, got {step}")
        at = step + np.arange(horizon)
        actions = self.values[key][np.minimum(at, len(self) - 1)]
        return actions.reshape(horizon, -1).astype(np.float32), at >= len(self)


class Dataset(Sequence[Episode]):
    """The episodes of a folder. Needs the extra `lerobot`.

    Metadata are read at once, an episode when it is asked for; with pictures it is held in memory as a whole.

    folder: of a LeRobotDataset v3. cameras: the keys of the pictures to read; None reads all, () none.

    Attributes:
        info: what info.json says.
        statistics: by key, out of stats.json: min, max, mean, std, count. Empty where there is none.

    Raises:
        InputError: the folder is of another version, incomplete or damaged; names the file and the field.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: str | Path, cameras: Collection[str] | None = None):
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self._pictures = self.info.cameras if cameras is None else tuple(cameras)
        for key in self._pictures:
            if key not in self.info.cameras:
                raise InputError(f"{self.folder}: no camera {key!r}; {suggestion(key, self.info.cameras)}")
        self._tasks = self._read_tasks()
        self._rows = self._read_episodes()
        self.statistics = self._read_statistics()
        self._open: tuple[Path, Any] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        """Read an episode, or several.

        Raises:
            IndexError: there are not so many.
            InputError: its files are missing or damaged, or disagree with the metadata.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = self._rows[range(len(self))[index]]
        values = self._frames(row)
        for key in self._pictures:
            if self.info.features[key].dtype == VIDEO:
                values[key] = self._film(row, key)
        tasks = [self._tasks.get(int(number)) for number in values["task_index"]]
        if None in tasks:
            raise InputError(f"{self.folder / layout.TASKS}: expected a task for each task_index of the frames")
        return Episode(row["episode_index"], tuple(task or "" for task in tasks), values)

    def _read_tasks(self) -> dict[int, str]:
        path = self.folder / layout.TASKS
        table = _table(path).to_pydict()
        names = [name for name in table if name != "task_index"]  # one column, whose name has changed
        if "task_index" not in table or len(names) != 1:
            raise InputError(f"{path}: expected the column task_index and one of texts, got {', '.join(table)}")
        return dict(zip(table["task_index"], map(str, table[names[0]]), strict=True))

    def _read_episodes(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "meta/episodes").glob("*/*.parquet"))
        needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        for key in self._pictures:
            if self.info.features[key].dtype == VIDEO:
                needed += [f"videos/{key}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        rows = []
        for path in paths:
            table = _table(path)
            if missing := set(needed) - set(table.column_names):
                raise InputError(f"{path}: expected the columns {', '.join(sorted(missing))}")
            for name in needed:
                kinds = int if name.rpartition("/")[2] != "from_timestamp" else (int, float)
                for value in table[name].to_pylist():
                    if not isinstance(value, kinds) or not 0 <= value < math.inf:
                        raise InputError(f"{path}: {name}: expected numbers from 0 on, got {value!r:.80}")
            rows += table.select(needed).to_pylist()
        if [row["episode_index"] for row in rows] != list(range(self.info.episodes)):
            expected = f"{self.info.episodes} episodes in order, as {layout.INFO} says"
            raise InputError(f"{self.folder / 'meta/episodes'}: expected {expected}, got {len(rows)}")
        return rows

    def _read_statistics(self) -> dict[str, Statistics]:
        path = self.folder / layout.STATISTICS
        if not path.is_file():
            return {}
        tree = read_json(path)
        with naming(str(path)), refusing("numbers by key and name"):
            return {
                key: {n: np.asarray(array, np.float64) for n, array in entry.items()} for key, entry in tree.items()
            }

    def _frames(self, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the rows of the data hold."""
        pattern, index = self.info.data_path, row["episode_index"]
        name = pattern.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        path = self.folder / name
        if self._open is None or self._open[0] != path:
            self._open = path, _table(path)
        table = self._open[1]
        compute = require("pyarrow.compute", "lerobot")
        with naming(str(path)):
            wanted = {key: f for key, f in self.info.features.items() if not f.picture or key in self._pictures}
            keys = [key for key, feature in wanted.items() if feature.dtype != VIDEO]
            if missing := [key for key in keys if key not in table.column_names]:
                raise InputError(f"expected the columns {', '.join(missing)}")
            table = table.filter(compute.equal(table["episode_index"], index))
            if table.num_rows != row["length"]:
                raise InputError(f"expected {row['length']} frames of episode {index}, got {table.num_rows}")
            values = {}
            for key in keys:
                with naming(key):
                    values[key] = _column(table[key], self.info.features[key])
            if (values["frame_index"] != np.arange(table.num_rows)).any():
                raise InputError(f"frame_index: expected 0 to {table.num_rows - 1} in order in episode {index}")
        return values

    def _film(self, row: Mapping[str, Any], key: str) -> np.ndarray:
        """The frames of a camera, which begin within a longer film."""
        if self.info.video_path is None:
            raise InputError(f"{self.folder / layout.INFO}: video_path: expected one, as {key!r} is a video")
        chunk, file = (row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index"))
        name = self.info.video_path.format(video_key=key, chunk_index=chunk, file_index=file)
        length, start = row["length"], row[f"videos/{key}/from_timestamp"]
        frames, _ = read_video(self.folder / name, length, start=start)
        expected = (length, *self.info.features[key].shape)
        if frames.shape != expected:
            raise InputError(f"{self.folder / name}: expected {expected} from {start} s on, got {frames.shape}")
        return frames


def _table(path: Path) -> Any:
    """A parquet file."""
    parquet = require("pyarrow.parquet", "lerobot")
    with naming(str(path)), refusing("a parquet file"):
        table = parquet.ParquetFile(existing_file(path)).read()
        table.validate(full=True)  # of texts, that they are UTF-8
        return table


def _column(column: Any, feature: Feature) -> np.ndarray:
    """A column to an array [t, *shape]."""
    if column.null_count:
        raise InputError(f"expected a value for each frame, got {column.null_count} frames without")
    if feature.dtype == IMAGE:
        with refusing("PNG pictures in the column"):
            pictures = np.stack([decode_image(entry["bytes"], 3) for entry in column.to_pylist()])
        if pictures.shape[1:] != feature.shape:
            raise InputError(f"expected pictures {feature.shape}, got {pictures.shape[1:]}")
        return pictures
    arrow = require("pyarrow", "lerobot")
    array, count = column.combine_chunks(), len(column)
    if isinstance(array, arrow.ChunkedArray):  # of no rows, in some versions
        array = arrow.concat_arrays(array.chunks)
    if isinstance(array, arrow.ExtensionArray):  # what `datasets` makes of arrays of several axes
        array = array.storage
    types = arrow.types
    while types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        array = array.flatten()
    if feature.dtype == layout.STRING:
        flat = np.array(array.to_pylist(), object)
    else:
        with refusing(f"numbers that fit {feature.dtype}"):
            flat = array.to_numpy(zero_copy_only=False).astype(feature.dtype, casting="same_kind")
    expected = count * int(np.prod(feature.shape))
    if flat.size != expected:
        raise InputError(f"expected {expected} numbers of {count} frames {feature.shape}, got {flat.size}")
    return flat.reshape(count) if feature.shape == (1,) else flat.reshape(count, *feature.shape)
