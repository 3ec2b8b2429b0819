"""Writing a LeRobotDataset v3 folder, episode by episode."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.control.lerobot import layout
from perceiver.control.lerobot.films import Films
from perceiver.control.lerobot.layout import IMAGE, OWN, STRING, VIDEO, Feature, Info, check_key, place
from perceiver.control.lerobot.statistics import Statistics, as_json, episode_statistics, pooled
from perceiver.errors import InputError, naming, require
from perceiver.io.images import encode_png
from perceiver.robot import TIMESTAMP
from perceiver.saving import dump, write_durably


class Writer:
    """A new folder of episodes; `with Writer(…) as writer: writer.add(…)`. Needs the extra `lerobot`.

    Everything is written aside and moved into place by `close`, which leaving the block does: an error or an interrupt
    in it keeps the episodes that were added. A process that is killed leaves no folder, only the one aside, whose name
    begins with a dot.

    folder: where; nothing may be there, or an empty folder.
    rate: frames a second.
    features: what each frame has, by key, beside `layout.OWN`, which is made here.
    robot: what is recorded.

    Raises:
        InputError: the folder exists, or the features cannot be.
        MissingExtraError: pyarrow, or with films av, is not installed.
    """

    def __init__(self, folder: str | Path, rate: float, features: Mapping[str, Feature], robot: str | None = None):
        self.folder, self.rate, self.features, self.robot = Path(folder), float(rate), dict(features), robot
        if not 0.0 < self.rate < float("inf"):
            raise InputError(f"rate: expected frames a second, above 0, got {rate}")
        for key in self.features:
            check_key(key)
            if key in OWN:
                raise InputError(f"features: {key!r} is made by the writer, so it cannot be one")
        if self.folder.exists() and not (self.folder.is_dir() and not any(self.folder.iterdir())):
            raise InputError(f"{self.folder}: exists, so it is not overwritten")
        self._arrow, self._parquet = require("pyarrow", "lerobot"), require("pyarrow.parquet", "lerobot")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._aside = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        cameras = {key: f.shape[:2] for key, f in self.features.items() if f.dtype == VIDEO}
        self._films = Films(self._aside, self.rate, cameras)
        self._data: Any = None
        self._file = 0
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Statistics]] = []

    @property
    def episodes(self) -> int:
        """How many were added."""
        return len(self._rows)

    @property
    def frames(self) -> int:
        """How many these have together."""
        return self._rows[-1]["dataset_to_index"] if self._rows else 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, values: Mapping[str, Any], task: str | Sequence[str]) -> None:
        """Write an episode.

        values: arrays [t, *shape] by the features' keys, [t] for single numbers. task: what was to do, in words, of the
            episode or of each frame.

        Raises:
            InputError: a key is missing or unknown, a shape or dtype does not fit, or numbers are not finite; names the
                key. Nothing of the episode is written then.
        """
        length = len(next(iter(values.values()), ()))
        with naming(f"episode {self.episodes}"):
            checked = self._checked(values, length)
            tasks = [task] * length if isinstance(task, str) else list(task)
            if len(tasks) != length or not all(isinstance(text, str) and text for text in tasks):
                raise InputError(f"task: expected a text, or one for each of {length} frames, got {task!r:.60}")
        for text in tasks:
            self._tasks.setdefault(text, len(self._tasks))
        whole = checked | {
            TIMESTAMP: (np.arange(length) / self.rate).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, self.episodes),
            "index": self.frames + np.arange(length),
            "task_index": np.array([self._tasks[text] for text in tasks]),
        }
        row: dict[str, Any] = {"episode_index": self.episodes, "tasks": list(dict.fromkeys(tasks)), "length": length}
        row |= self._films.add(whole)
        row |= self._add_rows(whole)
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + length}
        statistics = episode_statistics(whole, self.features | OWN)
        flat = {f"stats/{key}/{name}": a for key, entry in as_json(statistics).items() for name, a in entry.items()}
        self._rows.append(row | flat | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._statistics.append(statistics)

    def close(self) -> None:
        """Write the metadata and move the folder into place; without an episode there will be none."""
        if not self._aside.exists():
            return
        try:
            self._films.close()
            if self._data is not None:
                self._data.close()
            if self._rows:
                self._write_metadata()
                if self.folder.exists():
                    self.folder.rmdir()
                os.chmod(self._aside, 0o755)
                os.replace(self._aside, self.folder)
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _checked(self, values: Mapping[str, Any], length: int) -> dict[str, np.ndarray]:
        if not length:
            raise InputError("expected at least one frame, got none")
        if values.keys() != self.features.keys():
            raise InputError(f"expected the keys {', '.join(self.features)}, got {', '.join(values)}")
        return {key: _fitting(key, np.asarray(values[key]), f, length) for key, f in self.features.items()}

    def _add_rows(self, values: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Frames to the data; where they are."""
        features = {key: f for key, f in (self.features | OWN).items() if f.dtype != VIDEO}
        table = self._arrow.table({key: self._column(values[key], f) for key, f in features.items()})
        path = self._aside / place(layout.DATA, self._file)
        if self._data is not None and path.stat().st_size >= layout.DATA_MB * 2**20:
            self._data.close()
            self._data, self._file = None, self._file + 1
            path = self._aside / place(layout.DATA, self._file)
        if self._data is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = self._parquet.ParquetWriter(path, table.schema)
        self._data.write_table(table)
        chunk, file = divmod(self._file, layout.FILES_PER_CHUNK)
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _column(self, array: np.ndarray, feature: Feature) -> Any:
        arrow = self._arrow
        if feature.dtype == IMAGE:
            pictures = [{"bytes": encode_png(picture), "path": None} for picture in array]
            return arrow.array(pictures, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
        if feature.dtype == STRING:
            return arrow.array(array.tolist(), arrow.string())
        column = arrow.array(array.reshape(-1))
        shape = () if feature.shape == (1,) else feature.shape
        for size in reversed(shape):
            column = arrow.FixedSizeListArray.from_arrays(column, size)
        return column

    def _write_metadata(self) -> None:
        features = self.features | OWN
        episodes = self._aside / place(layout.EPISODES, 0)
        episodes.parent.mkdir(parents=True, exist_ok=True)
        info = Info(self.rate, features, self.episodes, self.frames, self.robot)
        write_durably(self._aside / layout.INFO, dump(layout.info_tree(info, len(self._tasks), self._films.about)))
        write_durably(self._aside / layout.STATISTICS, dump(as_json(pooled(self._statistics))))
        self._parquet.write_table(self._arrow.Table.from_pylist(self._rows), episodes)
        # The texts are the index of a pandas data frame, which lerobot reads it as.
        index = "__index_level_0__"
        tasks = self._arrow.table({"task_index": list(self._tasks.values()), index: list(self._tasks)})
        pandas = {
            "index_columns": [index],
            "column_indexes": [],
            "columns": [
                _pandas_column("task_index", "task_index", "int64", "int64"),
                _pandas_column(None, index, "unicode", "object"),
            ],
            "pandas_version": "2.0.0",
        }
        self._parquet.write_table(
            tasks.replace_schema_metadata({"pandas": json.dumps(pandas)}), self._aside / layout.TASKS
        )


def _pandas_column(name: str | None, field: str, kind: str, numpy: str) -> dict[str, Any]:
    return {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}


def _fitting(key: str, array: np.ndarray, feature: Feature, length: int) -> np.ndarray:
    """An array as its feature is declared."""
    shape = (length,) if feature.shape == (1,) and array.ndim == 1 else (length, *feature.shape)
    if array.shape != shape:
        raise InputError(f"{key}: expected {shape}, got {array.shape}")
    if feature.dtype == STRING:
        return array.reshape(length)
    wanted = np.dtype(np.uint8 if feature.picture else feature.dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(f"{key}: expected {wanted}, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{key}: expected finite numbers, got NaN or infinity")
    array = array.astype(wanted)
    return array.reshape(length) if feature.shape == (1,) else array
