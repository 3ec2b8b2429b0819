"""Pictures that are no files of their own: bytes from a zip or a record to uint8 arrays."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.records import Record
from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing
from perceiver.io.images import decode_image

MAX_BYTES = 2**28
"""Size above which a member of a zip is refused, before it is unpacked."""


def decode_picture(data: bytes, name: str, channels: int) -> np.ndarray:
    """What `perceiver.io.read_image` does to a file's content: uint8 [h, w, channels], transparency over white.

    Raises:
        InputError: no image, truncated or too large; `name` is in front.
    """
    with naming(name):
        return decode_image(data, channels)


def over_white(image: np.ndarray) -> np.ndarray:
    """A picture without its transparency: uint8 [h, w, 3], from uint8 [h, w, 3 or 4]."""
    if image.shape[-1] == 3:
        return image
    alpha = image[..., 3:] / np.float32(255)
    return np.round(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


class Members:
    """The files inside a zip, read one at a time, from any thread."""

    def __init__(self, path: Path) -> None:
        with naming(str(path)), refusing("a zip file"):
            self._archive = zipfile.ZipFile(existing_file(path))
        self.path = path
        self.names = frozenset(self._archive.namelist())

    def __reduce__(self) -> tuple[type["Members"], tuple[Path]]:
        return Members, (self.path,)

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            InputError: damaged, or larger than MAX_BYTES.
        """
        with naming(f"{self.path}: {name}"), refusing("a whole file inside the zip"):
            size = self._archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise InputError(f"expected at most {MAX_BYTES} bytes, got {size}")
            return self._archive.read(name)

    def with_image(self, row: Record) -> Record:
        """A row with the content of its file."""
        return {**row, "image": self.read(row["file"])}

    def check(self, rows: Sequence[dict[str, Any]], field: str, source: Path) -> None:
        """Check that every row of `source` names a file that is inside.

        Raises:
            InputError: one does not.
        """
        for line, row in enumerate(rows, 1):
            if row[field] not in self.names:
                raise InputError(f"{source}, line {line}: expected a file inside {self.path}, got {row[field]!r}")
