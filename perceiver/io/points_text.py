"""What PCD and PLY share: a header in lines of text, then a record for each point, in text or in binary."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from perceiver.errors import InputError
from perceiver.io.files import refusing

_LINE_BYTES, _LINES = 8192, 1000  # of a header
_BLOCK_NUMBERS = 1 << 18  # read from text at once, to bound the memory next to the result


class Column(NamedTuple):
    """One number of a record."""

    name: str | None  # None: padding, skipped
    dtype: np.dtype


def header_lines(handle: BinaryIO) -> Iterator[list[str]]:
    """Yield the words of each line; the caller stops at the header's end. Bytes outside ASCII become escapes.

    Raises:
        InputError: a line that is too long or has no end, or too many of them.
    """
    for _ in range(_LINES):
        line = handle.readline(_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise InputError(f"expected a header in lines of at most {_LINE_BYTES} bytes, got {line[:40]!r} unended")
        yield line.decode("ascii", "backslashreplace").split()
    raise InputError(f"expected a header of at most {_LINES} lines, got more")


def to_count(text: str, name: str) -> int:
    """Return a whole number of at most 18 digits.

    Raises:
        InputError: anything else, signs included.
    """
    if not re.fullmatch("[0-9]{1,18}", text):
        raise InputError(f"{name}: expected a whole number from 0 to 10^18, got {text[:40]!r}")
    return int(text)


def check_columns(columns: Sequence[Column], count: int, max_points: int) -> None:
    """Check what a header claims before any point is read.

    Raises:
        InputError: a name that comes twice, no x, y or z, or more than `max_points` points.
    """
    names = [column.name for column in columns if column.name is not None]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice or not {"x", "y", "z"} <= set(names):
        raise InputError(
            f"expected x, y, z and other names, each once, got {', '.join(names)[:200]}"
            + (f": {', '.join(sorted(twice))[:200]} twice" if twice else "")
        )
    if count > max_points:
        raise InputError(f"expected at most {max_points} points, got {count}")


def check_left(handle: BinaryIO, size: int, what: str) -> None:
    """Raise InputError where the file has fewer than `size` bytes left."""
    left = os.fstat(handle.fileno()).st_size - handle.tell()
    if size > left:
        raise InputError(f"expected {what} in {size} bytes or more, got {left}: truncated")


def check_end(handle: BinaryIO) -> None:
    """Raise InputError where something other than padding is left: zeros, blanks and line ends."""
    while block := handle.read(1 << 20):
        if rest := block.strip(b"\0 \t\r\n"):
            raise InputError(f"expected the end of the file after what the header names, got {rest[:20]!r}")


def filled_lines(handle: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are not blank, to the file's end."""
    return (line for line in handle if not line.isspace())


def read_text(handle: BinaryIO, columns: Sequence[Column], count: int) -> dict[str, np.ndarray]:
    """Read `count` lines of one number for each column; blank lines are skipped.

    The last line must be ended too: without, a number that was cut could not be told from a whole one.

    Returns:
        By name, each [count], in the column's dtype.

    Raises:
        InputError: too few lines, other numbers of words, words that are no number of the column's dtype.
    """
    check_left(handle, 2 * count * len(columns), f"{count} lines of {len(columns)} numbers")
    values = {column.name: np.empty(count, column.dtype) for column in columns if column.name is not None}
    lines, done = filled_lines(handle), 0
    while done < count:
        block = list(itertools.islice(lines, min(max(1, _BLOCK_NUMBERS // len(columns)), count - done)))
        if not block or not block[-1].endswith(b"\n"):
            raise InputError(f"expected {count} lines of points, each ended, got {done + len(block)}: truncated")
        rows = [line.split(None, len(columns)) for line in block]
        for k, row in enumerate(rows):
            if len(row) != len(columns):
                raise InputError(f"point {done + k}: expected {len(columns)} numbers, got {block[k][:80]!r}")
        for column, words in zip(columns, zip(*rows, strict=True), strict=True):
            if column.name is not None:
                values[column.name][done : done + len(rows)] = _to_numbers(words, column)
        done += len(rows)
    return values


def _to_numbers(words: Sequence[bytes], column: Column) -> np.ndarray:
    """Return the numbers that the words name; what a float cannot hold becomes infinite."""
    with refusing(f"{column.name} of type {column.dtype}"), np.errstate(over="ignore"):
        if b"_" in b"".join(words):
            raise ValueError("a number with underscores, as Python writes them")
        return np.array([float(word) if column.dtype.kind == "f" else int(word) for word in words], column.dtype)


def read_binary(handle: BinaryIO, columns: Sequence[Column], count: int) -> dict[str, np.ndarray]:
    """Read `count` records of the columns without gaps.

    Returns:
        By name, each [count], in the column's dtype and this machine's byte order.

    Raises:
        InputError: the file is too short.
    """
    record = np.dtype([(str(k), column.dtype) for k, column in enumerate(columns)])
    check_left(handle, count * record.itemsize, f"{count} points of {record.itemsize} bytes")
    records = np.frombuffer(handle.read(count * record.itemsize), record)
    # Copies, so that a feature kept for long does not hold all of them.
    return {
        column.name: records[str(k)].astype(column.dtype.newbyteorder("="))
        for k, column in enumerate(columns)
        if column.name is not None
    }


def split_xyz(values: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return x, y, z as float64 [n, 3], and the others."""
    xyz = np.stack([values[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return xyz, {name: column for name, column in values.items() if name not in ("x", "y", "z")}
