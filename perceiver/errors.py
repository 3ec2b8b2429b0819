"""The errors that callers may meet, and the one way to ask for an optional package."""

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType


class InputError(ValueError):
    """Data that does not fit: names the file, modality or field, what was expected and what came."""


class ConfigError(ValueError):
    """A configuration that cannot be built or read: names the field and what would be accepted."""


class MissingExtraError(ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def require(package: str, extra: str) -> ModuleType:
    """Import `package`, or say which extra of perceiver installs it.

    Raises:
        MissingExtraError: the package is absent.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed: pip install 'perceiver[{extra}]'"
        ) from error


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """Prefix any InputError raised inside with the place it concerns, such as `inputs['image']`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
