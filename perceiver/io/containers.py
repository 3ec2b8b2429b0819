"""Which container a video file is, and whether all of it is there: decoders take a cut file for a shorter video.

Sources: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), Microsoft's RIFF, the GIF89a specification.
"""

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from perceiver.errors import InputError
from perceiver.io.images import check_png_end


class Container(enum.Enum):
    """Known containers. The values are FFmpeg's names for those it reads here, and Pillow's for the pictures."""

    MOV = "mov"
    MATROSKA = "matroska"
    AVI = "avi"
    GIF = "GIF"
    WEBP = "WEBP"
    PNG = "PNG"


PICTURES = (Container.GIF, Container.WEBP, Container.PNG)
"""What Pillow reads, with no extra."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # what an MP4 or QuickTime file may start with
_SEGMENT = 0x18538067


def container_of(file: Path) -> Container:
    """Tell the container by the content, and check that the file is as long as it says.

    Raises:
        InputError: another container, or a truncated file; without the path in front.
    """
    with open(file, "rb") as handle:
        head = handle.read(12)
        size = handle.seek(0, os.SEEK_END)
        kind = _kind(head)
        if kind is None:
            raise InputError(f"expected MP4, MOV, Matroska, WebM, AVI, GIF, WebP or PNG, got a file with {head!r}")
        _CHECKS[kind](handle, size)
        return kind


def _kind(head: bytes) -> Container | None:
    if head[:4] == b"RIFF":
        return {b"AVI ": Container.AVI, b"WEBP": Container.WEBP}.get(head[8:12])
    starts = {b"GIF8": Container.GIF, b"\x89PNG": Container.PNG, b"\x1a\x45\xdf\xa3": Container.MATROSKA}
    return Container.MOV if head[4:8] in _BOXES else starts.get(head[:4])


def _check_boxes(handle: BinaryIO, size: int) -> None:
    """Walk the outermost boxes of an MP4 or QuickTime file, each with its length in front."""
    start, names = 0, []
    while start < size:
        length, name = int.from_bytes(_exactly(handle, start, 4), "big"), _exactly(handle, start + 4, 4)
        if length == 1:
            length = int.from_bytes(_exactly(handle, start + 8, 8), "big")
        elif length == 0:  # up to the end
            length = size - start
        if length < 8:
            raise InputError(f"expected a box at byte {start}, got a length of {length}")
        start += length
        names.append(name)
    _check_end(start, size)
    if b"moov" not in names:
        raise InputError("expected a box 'moov', got none: truncated")


def _check_ebml(handle: BinaryIO, size: int) -> None:
    """Walk the outermost elements of a Matroska file: an identifier and a length, both of 1 to 8 bytes."""
    start = 0
    while start < size:
        name, width, _ = _variable(handle, start)
        start += width
        length, width, unknown = _variable(handle, start, marked=False)
        start += width
        if unknown:  # written live; nothing to compare with
            return
        start += length
        if name == _SEGMENT:
            break
    _check_end(start, size)


def _variable(handle: BinaryIO, start: int, marked: bool = True) -> tuple[int, int, bool]:
    """An EBML number: its value with or without the marker of its width, the width, and whether all bits are 1."""
    first = _exactly(handle, start, 1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise InputError(f"expected an EBML element at byte {start}, got a byte 0")
    value = int.from_bytes(_exactly(handle, start, width), "big")
    plain = value & (2 ** (7 * width) - 1)
    return (value if marked else plain), width, plain == 2 ** (7 * width) - 1


def _check_riff(handle: BinaryIO, size: int) -> None:
    """A RIFF file is one chunk, or for an AVI above 1 GiB several. Some writers leave the last padding byte out."""
    start = 0
    while start == 0 or (start + 12 <= size and _exactly(handle, start, 4) == b"RIFF"):
        length = int.from_bytes(_exactly(handle, start + 4, 4), "little")
        start += 8 + length + length % 2
        _check_end(start - length % 2, size)


def _check_gif(handle: BinaryIO, size: int) -> None:
    """Walk the blocks of a GIF up to its trailer."""
    start = 13 + _palette(_exactly(handle, 10, 1)[0])
    while (kind := _exactly(handle, start, 1)) != b";":
        if kind == b",":  # an image: descriptor, palette, and the width of its codes
            start += 11 + _palette(_exactly(handle, start + 9, 1)[0])
        elif kind == b"!":  # an extension and its label
            start += 2
        else:
            raise InputError(f"expected a GIF block at byte {start}, got {kind!r}")
        while length := _exactly(handle, start, 1)[0]:
            start += 1 + length
        start += 1


def _palette(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _exactly(handle: BinaryIO, start: int, count: int) -> bytes:
    handle.seek(start)
    data = handle.read(count)
    if len(data) != count:
        raise InputError(f"expected {count} bytes at {start}, got {len(data)}: truncated")
    return data


def _check_end(end: int, size: int) -> None:
    if end > size:
        raise InputError(f"expected {end} bytes, got {size}: truncated")


_CHECKS: dict[Container, Callable[[BinaryIO, int], None]] = {
    Container.MOV: _check_boxes,
    Container.MATROSKA: _check_ebml,
    Container.AVI: _check_riff,
    Container.GIF: _check_gif,
    Container.WEBP: _check_riff,
    Container.PNG: lambda handle, _: check_png_end(handle),
}
