"""Where datasets lie: a root folder with one folder for each."""

import os
from pathlib import Path

from perceiver.errors import InputError

VARIABLE = "PERCEIVER_DATA"


def location(name: str, root: str | Path | None) -> Path:
    """Where a dataset's folder should be: below the option, else the environment variable, else data/files."""
    return Path(root or os.environ.get(VARIABLE) or Path(__file__).parent / "files").expanduser() / name


def folder(name: str, root: str | Path | None, origin: str) -> Path:
    """The folder of a dataset; see `location`.

    origin: where the dataset comes from, for the error.

    Raises:
        InputError: not there; the message says where it was looked for and how to get it.
    """
    place = location(name, root)
    if not place.is_dir():
        raise InputError(
            f"{place}: the dataset {name!r} is not there. Get it from {origin}, put it into a folder called {name!r}, "
            f"and name the folder above it with --root or {VARIABLE}"
        )
    return place


def files(place: Path, pattern: str) -> list[Path]:
    """The files of a folder that fit a pattern such as *.laz, in the order of their names.

    Raises:
        InputError: there is none.
    """
    found = sorted(place.glob(pattern))
    if not found:
        raise InputError(f"{place}: expected files {pattern}, got none")
    return found
