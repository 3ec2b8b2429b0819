"""Pictures that are no files of their own: bytes from a zip or a record to uint8 arrays."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing
from perceiver.io.images import FORMATS, MAX_PIXELS, check_png_end, pillow_array

MAX_BYTES = 2**28
"""Size above which a member of a zip is refused, before it is unpacked."""

_ORIENTATION = 0x0112  # the tag of EXIF 2.32; 1 is upright


def decode_picture(data: bytes, name: str, channels: int) -> np.ndarray:
    """What `perceiver.io.read_image` does to a file's content: uint8 [h, w, channels], transparency over white.

    Raises:
        InputError: no image, truncated or too large; `name` is in front.
    """
    with naming(name), refusing(f"an image ({', '.join(FORMATS)})"):
        handle = io.BytesIO(data)
        image = Image.open(handle, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"expected at most {MAX_PIXELS} pixels, got {image.height} x {image.width}")
        image.load()
        if image.format == "PNG":
            check_png_end(handle)
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return pillow_array(image, channels, 255)


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

    def check(self, rows: Sequence[dict[str, Any]], field: str, source: Path) -> None:
        """Check that every row of `source` names a file that is inside.

        Raises:
            InputError: one does not.
        """
        for line, row in enumerate(rows, 1):
            if row[field] not in self.names:
                raise InputError(f"{source}, line {line}: expected a file inside {self.path}, got {row[field]!r}")
