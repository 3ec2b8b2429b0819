"""What every reader does first: is there a file at all, and whose exception is it?"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from perceiver.errors import InputError, MissingExtraError


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path after checking that it names a regular, non-empty file.

    Pipes and devices are refused too: reading one may never end.

    Raises:
        InputError: there is nothing, no permission, no regular file or no content. Without the path in
            front: the readers add it with `perceiver.errors.naming`.
    """
    with refusing("a file"):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise InputError("expected a file, got a directory")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("expected a regular file, got a pipe, a socket or a device")
    if status.st_size == 0:
        raise InputError("expected content, got an empty file of 0 bytes")
    return Path(path)


def read_utf8(path: Path) -> str:
    """The text of a file, which may be empty.

    Raises:
        InputError: no such file, or not UTF-8; names it.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected text in UTF-8, got {error}") from error


@contextlib.contextmanager
def refusing(expected: str) -> Iterator[None]:
    """Turn whatever a decoding library raises inside into an InputError that says what was expected.

    Decoders meet malformed content in places that they did not foresee and raise IndexError, struct.error,
    OverflowError and the like, so nothing narrower than Exception is complete: keep the block to the
    library's own calls.

    Raises:
        InputError: in place of any other Exception, and of a panic in a library written in Rust.
    """
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError:
        raise InputError(f"expected {expected}, got nothing: no such file") from None
    except BaseException as error:
        # pyo3 derives its PanicException from BaseException and offers no module to import it from.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"expected {expected}, got {type(error).__name__}: {error}") from error
