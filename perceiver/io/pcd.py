"""Point clouds in PCD files, as the Point Cloud Library writes them.

Sources: "The PCD (Point Cloud Data) file format", version 0.7, in PCL's documentation; for binary_compressed, PCL's
`PCDWriter::writeBinaryCompressed` (two uint32, the bytes compressed and plain, then all of a field before the next
field) and the format of M. Lehmann's LibLZF.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from perceiver.errors import InputError
from perceiver.io.points_text import (
    Column,
    check_columns,
    check_end,
    check_left,
    header_lines,
    read_binary,
    read_text,
    split_xyz,
    to_count,
)

_ENTRIES = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
_VERSIONS = (".7", ".6", ".5")
_ENCODINGS = ("ascii", "binary", "binary_compressed")
_TYPES = ("I1", "I2", "I4", "I8", "U1", "U2", "U4", "U8", "F4", "F8")  # TYPE and SIZE
_MOST_NUMBERS = 4096  # of a point; the longest descriptors of PCL have 2000
_MOST_PLAIN = 88  # bytes that a byte of LZF stands for at most: 3 bytes repeat up to 264


@dataclass(frozen=True)
class _Field:
    """One field of all points: [n, count]."""

    name: str
    dtype: np.dtype
    count: int

    @property
    def columns(self) -> list[Column]:
        names = [self.name] if self.count == 1 else [f"{self.name}_{k}" for k in range(self.count)]
        return [Column(None if self.name == "_" else name, self.dtype) for name in names]


def read_pcd(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a PCD file of version 0.5 to 0.7, with data in ascii, binary or binary_compressed (little-endian).

    Coordinates are as stored, in metres by convention; VIEWPOINT, the sensor's pose, is not applied. Organised clouds
    come row by row, with their NaN. Fields named `_` are padding. A colour packed into a float32 `rgb` stays so:
    `rgb.view(np.uint32)` is 0x00RRGGBB. In ascii, the last line must be ended, as any other.

    Returns:
        float64 [n, 3], and every other field, each [n] in the file's dtype; a field of COUNT k > 1 as `name_0` to
        `name_<k - 1>`.

    Raises:
        InputError: an entry of the header that is unknown, missing, there twice or no number that it may be, no x, y
            or z, too many points, truncated, words that are no numbers, compressed data that is damaged or claims
            more than it can hold, or more content than the header names.
    """
    with open(path, "rb") as handle:
        entries = _read_header(handle)
        fields = _parse_fields(entries)
        columns = [column for field in fields for column in field.columns]
        count = _count_points(entries)
        check_columns(columns, count, max_points)
        encoding = " ".join(entries["DATA"])
        if encoding == "ascii":
            values = read_text(handle, columns, count)
        elif encoding == "binary":
            values = read_binary(handle, columns, count)
        elif encoding == "binary_compressed":
            values = _read_compressed(handle, fields, count)
        else:
            raise InputError(f"DATA: expected one of {', '.join(_ENCODINGS)}, got {encoding[:40]!r}")
        check_end(handle)
    return split_xyz(values)


def _read_header(handle: BinaryIO) -> dict[str, list[str]]:
    """Return the values of each entry, up to DATA; COLUMNS is what FIELDS was called before."""
    entries: dict[str, list[str]] = {}
    for words in header_lines(handle):
        if not words or words[0].startswith("#"):
            continue
        key = "FIELDS" if words[0] == "COLUMNS" else words[0]
        if key not in _ENTRIES or key in entries:
            raise InputError(
                f"expected a header of {', '.join(_ENTRIES)}, each once, got {key[:40]!r}"
                + (" twice" if key in entries else "")
            )
        entries[key] = words[1:]
        if key == "DATA":
            break
    return entries


def _parse_fields(entries: dict[str, list[str]]) -> list[_Field]:
    """Return the fields of a point; versions before 0.7 may leave out SIZE and TYPE, all may leave out COUNT."""
    version = " ".join(entries.get("VERSION", [".5"])).removeprefix("0")
    if version not in _VERSIONS:
        raise InputError(f"VERSION: expected one of {', '.join(_VERSIONS)}, got {version[:40]!r}")
    needed = ("FIELDS", "SIZE", "TYPE") if version == ".7" else ("FIELDS",)
    if missing := [key for key in needed if key not in entries]:
        raise InputError(f"expected {', '.join(needed)} in a header of version {version}, got no {', '.join(missing)}")
    names = entries["FIELDS"]
    described = [names]
    for key, default in (("SIZE", "4"), ("TYPE", "F"), ("COUNT", "1")):
        described.append(entries.get(key, [default] * len(names)))
        if len(described[-1]) != len(names):
            raise InputError(f"{key}: expected {len(names)} values, one for each field, got {len(described[-1])}")
    fields = []
    for name, size, kind, number in zip(*described, strict=True):
        if kind + size not in _TYPES:
            raise InputError(f"{name}: expected TYPE and SIZE from {', '.join(_TYPES)}, got {kind[:9]} and {size[:9]}")
        count = to_count(number, f"COUNT of {name}")
        if not 1 <= count <= _MOST_NUMBERS:
            raise InputError(f"COUNT of {name}: expected 1 to {_MOST_NUMBERS}, got {count}")
        fields.append(_Field(name, np.dtype(f"<{kind.lower()}{size}"), count))
    if (total := sum(field.count for field in fields)) > _MOST_NUMBERS:
        raise InputError(f"COUNT: expected at most {_MOST_NUMBERS} numbers a point, got {total}")
    return fields


def _count_points(entries: dict[str, list[str]]) -> int:
    """Return POINTS, or WIDTH by HEIGHT, which must agree; old files have only one of the two."""
    claims = {key: to_count(" ".join(entries[key]), key) for key in ("WIDTH", "HEIGHT", "POINTS") if key in entries}
    if "WIDTH" not in claims and ("HEIGHT" in claims or "POINTS" not in claims):
        raise InputError(f"expected WIDTH and HEIGHT, or POINTS, got {', '.join(claims) or 'none of them'}")
    count = claims.get("POINTS", claims.get("WIDTH", 0) * claims.get("HEIGHT", 1))
    if "WIDTH" in claims and claims["WIDTH"] * claims.get("HEIGHT", 1) != count:
        raise InputError(f"expected WIDTH by HEIGHT to be POINTS, got {claims}")
    return count


def _read_compressed(handle: BinaryIO, fields: list[_Field], count: int) -> dict[str, np.ndarray]:
    """Read all of the first field, then of the next, from LZF."""
    check_left(handle, 8, "the sizes of the compressed data")
    packed, plain = struct.unpack("<II", handle.read(8))
    expected = count * sum(field.count * field.dtype.itemsize for field in fields)
    if plain != expected or plain > packed * _MOST_PLAIN:
        raise InputError(
            f"expected {count} points of {expected} bytes in all, from at least a byte for {_MOST_PLAIN}, got claims "
            f"of {plain} bytes from {packed}"
        )
    check_left(handle, packed, "compressed data")
    data, start = decompress_lzf(handle.read(packed), plain), 0
    values = {}
    for field in fields:
        block = np.frombuffer(data, field.dtype, count * field.count, start).reshape(count, field.count)
        start += block.nbytes
        for column, numbers in zip(field.columns, block.T, strict=True):
            if column.name is not None:
                values[column.name] = numbers.astype(field.dtype.newbyteorder("="))
    return values


def decompress_lzf(data: bytes, size: int) -> bytearray:
    """Decompress LZF into exactly `size` bytes.

    A control byte below 32 starts that many bytes and one more, as they are. Another one repeats what came before:
    its upper 3 bits are the length less 2, of which 7 takes a further byte to add; its lower 5 bits and the next byte
    are the distance less 1.

    Raises:
        InputError: data that ends too early, repeats from before its start, or gives another number of bytes.
    """
    out = bytearray()
    at = 0
    while at < len(data):
        control, at = data[at], at + 1
        if control < 32:
            length = control + 1
            run, at = data[at : at + length], at + length
        else:
            long = control >> 5 == 7
            if at + long >= len(data):
                raise InputError(f"LZF: expected a distance at byte {at}, got the end of {len(data)} bytes")
            length = (control >> 5) + 2 + (data[at] if long else 0)
            distance = ((control & 31) << 8) + data[at + long] + 1
            at += 1 + long
            start = len(out) - distance
            if start < 0:
                raise InputError(f"LZF: expected to repeat one of {len(out)} bytes, got {distance} back at byte {at}")
            run = bytes(out[start : start + length])
            if distance < length:  # what is repeated begins to repeat itself
                run = (run * (length // distance + 1))[:length]
        if len(run) < length or len(out) + length > size:
            raise InputError(f"LZF: expected {size} bytes in all, got {len(out)}, then {len(run)} of {length} at {at}")
        out += run
    if len(out) != size:
        raise InputError(f"LZF: expected {size} bytes, got {len(out)}")
    return out
