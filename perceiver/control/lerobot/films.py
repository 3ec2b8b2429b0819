"""The videos of a folder that is being written: for each camera its episodes one after another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.control.lerobot.layout import FILES_PER_CHUNK, VIDEO_MB, VIDEOS, place
from perceiver.io.video_writing import CODEC, PIXELS, VideoWriter


class Films:
    """folder: of the dataset. rate: frames a second. cameras: height and width by key."""

    def __init__(self, folder: Path, rate: float, cameras: Mapping[str, tuple[int, ...]]):
        self._folder, self._rate, self._cameras = folder, rate, dict(cameras)
        self._open: dict[str, VideoWriter] = {}
        self._files = dict.fromkeys(cameras, 0)

    def add(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Write an episode's frames uint8 [t, h, w, 3]; where they are, as columns of the episodes' table."""
        row: dict[str, Any] = {}
        for key in self._cameras:
            film = self._film(key)
            begun = film.frames
            film.add(values[key])
            chunk, file = divmod(self._files[key], FILES_PER_CHUNK)
            row |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": begun / self._rate,
                f"videos/{key}/to_timestamp": film.frames / self._rate,
            }
        return row

    def _film(self, key: str) -> VideoWriter:
        """The file that the next episode goes to."""
        film = self._open.get(key)
        if film is not None and film.bytes >= VIDEO_MB * 2**20:
            film.close()
            self._files[key] += 1
            film = None
        if film is None:
            height, width = self._cameras[key]
            path = self._folder / place(VIDEOS, self._files[key], key)
            path.parent.mkdir(parents=True, exist_ok=True)
            film = self._open[key] = VideoWriter(path, self._rate, (height, width))
        return film

    def close(self) -> None:
        """Write the ends of the files."""
        for film in self._open.values():
            film.close()
        self._open = {}

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What info.json says of each camera's film."""
        return {
            key: {
                "video.height": height,
                "video.width": width,
                "video.codec": CODEC,
                "video.pix_fmt": PIXELS,
                "video.is_depth_map": False,
                "video.fps": int(self._rate) if self._rate.is_integer() else self._rate,
                "video.channels": 3,
                "has_audio": False,
            }
            for key, (height, width) in self._cameras.items()
        }
