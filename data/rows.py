"""Metadata of one JSON object a line, checked field by field."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perceiver.errors import InputError, naming
from perceiver.io.files import existing_file, refusing


def text(value: Any) -> str:
    """A string that UTF-8 can hold.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"expected a text, got {value!r:.80}")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings, maybe empty.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, list):
        raise InputError(f"expected a list of texts, got {value!r:.80}")
    return tuple(text(one) for one in value)


def integer(value: Any) -> int:
    """A whole number of 64 bits.

    Raises:
        InputError: something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise InputError(f"expected a whole number, got {value!r:.80}")
    return value


def inner_path(value: Any) -> str:
    """The path of a file inside the dataset's folder or zip.

    Raises:
        InputError: something else, or a path that leads out.
    """
    path = text(value)
    if not path or path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise InputError(f"expected the path of a file inside the dataset, got {value!r:.80}")
    return path


def read_rows(path: Path, fields: Mapping[str, Callable[[Any], Any]]) -> list[dict[str, Any]]:
    """The wanted fields of every line, each through its check; row i stands in line i + 1.

    Raises:
        InputError: no such file, or a line that is no JSON object or lacks a field; file, line and field are named.
    """
    with naming(str(path)), refusing("a file of JSON lines"):
        lines = existing_file(path).read_bytes().removesuffix(b"\n").split(b"\n")
    return [_row(f"{path}, line {number}", line, fields) for number, line in enumerate(lines, 1)]


def unique(rows: list[dict[str, Any]], field: str, path: Path) -> None:
    """Check that no two rows have the same value of a field.

    Raises:
        InputError: two have; the second is named.
    """
    seen: dict[Any, int] = {}
    for line, row in enumerate(rows, 1):
        first = seen.setdefault(row[field], line)
        if first != line:
            raise InputError(f"{path}, line {line}: expected another {field} than line {first}, got {row[field]!r}")


def _row(where: str, line: bytes, fields: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    with naming(where), refusing("a JSON object in UTF-8"):
        found = json.loads(line.decode("utf-8"))
        if not isinstance(found, dict):
            raise InputError(f"expected a JSON object, got {found!r:.80}")
    row = {}
    for name, check in fields.items():
        if name not in found:
            raise InputError(f"{where}: expected the field {name!r}, got {sorted(found)}")
        with naming(f"{where}, field {name!r}"):
            row[name] = check(found[name])
    return row
