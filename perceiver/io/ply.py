"""Point clouds in PLY files: the vertices, without the faces.

Source: G. Turk, "The PLY Polygon File Format", Stanford University, 1994, version 1.0; the type names with a number of
bits are later usage.
"""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from perceiver.errors import InputError
from perceiver.io.points_text import (
    Column,
    check_columns,
    check_end,
    check_left,
    filled_lines,
    header_lines,
    read_binary,
    read_text,
    split_xyz,
    to_count,
)

_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **{"char": "i1", "short": "i2", "int": "i4", "uchar": "u1", "ushort": "u2", "uint": "u4"},
    **{"int8": "i1", "int16": "i2", "int32": "i4", "uint8": "u1", "uint16": "u2", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str  # NumPy's name of the type, without the byte order
    counted: str | None  # for a list, that of its length in front


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]


def read_ply(path: Path, max_points: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read the vertices of a PLY file: ascii, binary_little_endian or binary_big_endian.

    Coordinates are as stored; the format knows no units. The other elements are walked over, wherever they stand, to
    see that they are complete, and not returned. In ascii, the last vertex's line must be ended, as any other.

    Returns:
        float64 [n, 3], and every other property of `vertex`, each [n] in the file's type and this machine's byte order.

    Raises:
        InputError: a line of the header that says something else, no or two elements `vertex`, a list in it, no x, y
            or z, too many points, truncated, words that are no numbers, or more content than the header names.
    """
    with open(path, "rb") as handle:
        form, elements = _read_header(handle)
        vertices = [element for element in elements if element.name == "vertex"]
        if len(vertices) != 1:
            raise InputError(f"expected one element vertex, got {len(vertices)} among {len(elements)} elements")
        if lists := [p.name for p in vertices[0].properties if p.counted]:
            raise InputError(f"expected one number for each property of vertex, got lists: {', '.join(lists)[:200]}")
        columns = [Column(p.name, np.dtype(_ORDERS[form] + p.kind)) for p in vertices[0].properties]
        check_columns(columns, vertices[0].count, max_points)
        for element in elements:
            if element is vertices[0]:
                values = (read_text if form == "ascii" else read_binary)(handle, columns, element.count)
            elif form == "ascii":
                _skip_text(handle, element)
            else:
                _skip_binary(handle, element, "little" if form == "binary_little_endian" else "big")
        check_end(handle)
    return split_xyz(values)


def _read_header(handle: BinaryIO) -> tuple[str, list[_Element]]:
    """Return the encoding and the elements, in the file's order."""
    form, elements = "", list[_Element]()
    lines = header_lines(handle)
    if (first := next(lines)) != ["ply"]:
        raise InputError(f"expected a file that starts with a line ply, got {' '.join(first)[:40]!r}")
    for words in lines:
        match words:
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, "1.0"] if name in _ORDERS and not form:
                form = name
            case ["element", name, count]:
                elements.append(_Element(name, to_count(count, f"element {name}"), []))
            case ["property", *rest] if elements:
                elements[-1].properties.append(_parse_property(rest))
            case ["end_header"] if form:
                break
            case _:
                raise InputError(
                    f"expected one line format ({', '.join(_ORDERS)}) 1.0, then element NAME COUNT, then its "
                    f"property TYPE NAME, and end_header, got {' '.join(words)[:80]!r}"
                )
    return form, elements


def _parse_property(words: list[str]) -> _Property:
    match words:
        case [kind, name] if kind in _TYPES:
            return _Property(name, _TYPES[kind], None)
        case ["list", counted, kind, name] if kind in _TYPES and _TYPES.get(counted, "f")[0] != "f":
            return _Property(name, _TYPES[kind], _TYPES[counted])
    raise InputError(
        f"expected property TYPE NAME, or property list INTEGER-TYPE TYPE NAME, of the types {', '.join(_TYPES)}, got "
        f"{' '.join(words)[:80]!r}"
    )


def _skip_text(handle: BinaryIO, element: _Element) -> None:
    """Walk over a line for each of the element; of an element without properties there are none."""
    count = element.count if element.properties else 0
    if (lines := sum(1 for _ in itertools.islice(filled_lines(handle), count))) < count:
        raise InputError(f"expected {count} lines of {element.name}, got {lines}: truncated")


def _skip_binary(handle: BinaryIO, element: _Element, order: Literal["little", "big"]) -> None:
    """Walk over an element's records; where they hold lists, over one after the other."""
    fixed = sum(int((p.counted or p.kind)[1]) for p in element.properties)
    check_left(handle, element.count * fixed, f"{element.count} {element.name} of {fixed} bytes or more")
    if not any(p.counted for p in element.properties):
        handle.seek(element.count * fixed, 1)
        return
    for _ in range(element.count):
        for p in element.properties:
            size = int(p.kind[1])
            if p.counted:
                raw = handle.read(int(p.counted[1]))
                length = int.from_bytes(raw, order, signed=p.counted[0] == "i")
                if len(raw) < int(p.counted[1]) or length < 0:
                    raise InputError(f"{element.name}: expected the length of list {p.name}, got {raw!r}")
                size *= length
            handle.seek(size, 1)
    if (over := handle.tell() - os.fstat(handle.fileno()).st_size) > 0:
        raise InputError(f"expected {element.count} {element.name}, got {over} bytes less: truncated")
