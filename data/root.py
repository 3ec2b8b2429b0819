"""Where datasets lie: a root folder with one folder for each."""

import os
from pathlib import Path

from perceiver.errors import InputError

VARIABLE = "PERCEIVER_DATA"


def folder(name: str, root: str | Path | None, origin: str) -> Path:
    """The folder of a dataset below the root, which is the option, else the environment variable, else data/files.

    origin: where the dataset comes from, for the error.

    Raises:
        InputError: not there; the message says where it was looked for and how to get it.
    """
    place = Path(root or os.environ.get(VARIABLE) or Path(__file__).parent / "files") / name
    if not place.is_dir():
        raise InputError(
            f"{place}: the dataset {name!r} is not there. Get it from {origin}, put it into a folder called {name!r}, "
            f"and name the folder above it with --root or {VARIABLE}"
        )
    return place
