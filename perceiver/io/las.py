"""LAS and LAZ point clouds through laspy, with the claims of their headers checked first.

Source: ASPRS "LAS Specification 1.4 - R15" for the header, records (VLR) and extended records (EVLR).
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from perceiver.errors import InputError, require
from perceiver.io.laszip import check_laszip

_FEATURES = (
    "intensity",
    "return_number",
    "number_of_returns",
    "classification",
    "red",
    "green",
    "blue",
    "gps_time",
)
_HEADER_BYTES = (227, 227, 227, 235, 375)  # by minor version, 1.0 to 1.4
_VLR_BYTES, _EVLR_BYTES = 54, 60
_COMPRESSED, _RESERVED_BIT, _FORMAT_BITS = 0x80, 0x40, 0x3F  # of the header's point format byte
_BLOCK_POINTS = 1_000_000  # decoded at once, to bound the memory next to the result


@dataclass(frozen=True)
class _Header:
    """What the fixed part of a LAS header claims."""

    points_start: int  # bytes
    compressed: bool
    point_bytes: int
    count: int


def read_las(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a LAS or LAZ file, told apart by content; needs the extra `points`.

    Coordinates are in the unit of the file's reference system, metres in most.

    Returns:
        float64 [n, 3], and by name, each [n]: intensity uint16, return_number, number_of_returns,
        classification uint8; red, green, blue uint16 and gps_time float64 (seconds) where present.

    Raises:
        InputError: no LAS file, truncated, claims that do not fit the file's size, or too many points.
        MissingExtraError: laspy is not installed.
    """
    laspy = require("laspy", "points")
    with open(path, "rb") as handle:
        header = _check_header(handle, path.stat().st_size, max_points)
        handle.seek(0)
        # One thread: the parallel backend trusts the byte counts in the chunk table.
        reader = laspy.open(handle, closefd=False, laz_backend=laspy.LazBackend.Lazrs, read_evlrs=False)
        if header.compressed:
            records = [record.record_data for record in reader.header.vlrs.get("LasZipVlr")]
            check_laszip(handle, records, header.points_start, header.point_bytes, header.count)
            handle.seek(header.points_start)
        return _read_blocks(reader, header.count)


def _read_blocks(reader: Any, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read `count` points from an open laspy.LasReader into arrays."""
    known = set(reader.header.point_format.standard_dimension_names)
    # Untouched pages cost nothing: a claim of many points in a small file uses little before it fails.
    xyz = np.empty((count, 3))
    features: dict[str, np.ndarray] = {}
    done = 0
    while done < count:
        block = reader.read_points(min(_BLOCK_POINTS, count - done))
        if not len(block):
            raise InputError(f"expected {count} points from the header, got {done}")
        span = slice(done, done + len(block))
        for axis, raw in enumerate((block.X, block.Y, block.Z)):
            # A header with absurd scales overflows; what is not finite is reported by read_points.
            with np.errstate(invalid="ignore", over="ignore"):
                xyz[span, axis] = raw * reader.header.scales[axis] + reader.header.offsets[axis]
        for name in (name for name in _FEATURES if name in known):
            values = np.asarray(block[name])
            features.setdefault(name, np.empty(count, values.dtype))[span] = values
        done = span.stop
    return xyz, features


def _check_header(handle: BinaryIO, size: int, max_points: int) -> _Header:
    """Read the fixed header; check every claim about counts and positions against the file's size."""
    head, minor = _read_head(handle, size)
    header_bytes, start, vlrs, kind, point_bytes, count = struct.unpack_from("<HIIBHI", head, 94)
    if header_bytes < len(head) or header_bytes + vlrs * _VLR_BYTES > start or start > size:
        raise InputError(
            f"expected a header of {len(head)} bytes or more, {vlrs} records and then the points, got a "
            f"header of {header_bytes} bytes and points at byte {start} of {size}"
        )
    if minor >= 4:
        first, evlrs, count = struct.unpack_from("<QIQ", head, 235)
        _check_evlrs(handle, size, first, evlrs)
    if kind & _RESERVED_BIT or kind & _FORMAT_BITS > 10:
        raise InputError(f"expected a point format from 0 to 10, got byte {kind:#x}")
    scales = np.frombuffer(head, "<f8", 3, 131)
    if not np.all(np.isfinite(scales) & (scales != 0)):
        raise InputError(f"expected finite scales other than 0, got {scales}")
    if count > max_points:
        raise InputError(f"expected at most {max_points} points, got {count}")
    compressed = bool(kind & _COMPRESSED)
    if not compressed and start + count * point_bytes > size:
        raise InputError(
            f"expected {count} points of {point_bytes} bytes from the header, got {size - start} bytes: truncated"
        )
    return _Header(start, compressed, point_bytes, count)


def _read_head(handle: BinaryIO, size: int) -> tuple[bytes, int]:
    """Read the part of the header that its version prescribes; return it with the minor version."""
    head = handle.read(_HEADER_BYTES[0])
    if head[:4] != b"LASF":
        raise InputError(f"expected a file that starts with LASF, got {head[:4]!r}")
    if size < _HEADER_BYTES[0]:
        raise InputError(f"expected a header of {_HEADER_BYTES[0]} bytes, got {size}: truncated")
    major, minor = head[24:26]
    if major != 1 or minor >= len(_HEADER_BYTES):
        raise InputError(f"expected LAS version 1.0 to 1.{len(_HEADER_BYTES) - 1}, got {major}.{minor}")
    if size < _HEADER_BYTES[minor]:
        raise InputError(f"expected a header of {_HEADER_BYTES[minor]} bytes, got {size}: truncated")
    return head + handle.read(_HEADER_BYTES[minor] - len(head)), minor


def _check_evlrs(handle: BinaryIO, size: int, start: int, count: int) -> None:
    """Check that the extended records, which lie behind the points, are all there."""
    if count * _EVLR_BYTES > size:
        raise InputError(f"expected {count} extended records, got a file of {size} bytes")
    for k in range(count):
        handle.seek(min(start, size))
        head = handle.read(_EVLR_BYTES)
        if len(head) == _EVLR_BYTES:
            start += _EVLR_BYTES + int.from_bytes(head[20:28], "little")
        if len(head) < _EVLR_BYTES or start > size:
            raise InputError(f"expected {count} extended records, got a file that ends in number {k}")
