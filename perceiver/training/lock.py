"""One run a folder: a lock that the system lets go of when its process ends, however it ends."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from perceiver.errors import InputError
from perceiver.training.processes import first

NAME = "run.lock"
_MINE: set[Path] = set()
"""Folders that this process holds."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the file in it says who does, and since when.

    It is a lock of the kernel (flock), which ends with its process, so a file that a killed run left behind holds
    nothing. A process that holds a folder may ask for it again; of several that share a run, the first holds it.

    Raises:
        InputError: another process holds it; who, and for how long. Or the folder cannot be written to.
    """
    path = folder.resolve() / NAME
    if path in _MINE or not first():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 closed below, which ends the lock
    except OSError as error:
        raise InputError(f"{folder}: a run's folder must be writable: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: {_owner(path)}; wait for it, stop it, or choose another --workdir") from None
        except OSError as error:  # a bucket mounted as a folder
            logging.getLogger(__name__).warning(
                "%s cannot be locked (%s): see that no other run uses it", folder, error
            )
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "host": platform.node(), "since": time.time()}))
        file.flush()
        _MINE.add(path)
        try:
            yield
        finally:
            _MINE.remove(path)


def _owner(path: Path) -> str:
    """Who holds the lock, as far as its file says; it may be read just before the owner has written to it."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        who, since = f"process {int(owner['process'])} on {owner['host']}", float(owner["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another run is at work in it"
    return f"another run is at work in it, {who}, for {max(time.time() - since, 0.0):.0f} s"
