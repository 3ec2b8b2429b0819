"""The size and sha256 of every file of a finished folder, so that damage is seen before anything in it is used."""

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from perceiver.errors import InputError
from perceiver.saving import FORMAT, MANIFEST, dump, read_manifest, replace_durably


def seal(folder: Path) -> None:
    """Write the manifest of a folder, which is then as it should be for good; flushed to the disk, and whole or absent.

    Raises:
        OSError: it cannot be written, such as on a full disk.
    """
    content = dump({"format": FORMAT, "files": {name: _entry(folder / name) for name in sorted(_files(folder))}})
    replace_durably(folder / MANIFEST, content)


def sealed(folder: Path) -> bool:
    """Whether the folder has its manifest, which it gets last."""
    return (folder / MANIFEST).is_file()


def damage(folder: Path, names: Collection[str] | None = None) -> str | None:
    """What is first found to differ from the manifest: the file, what was expected and what came; None if nothing.

    names: the files to look at; all, if None.
    """
    try:
        entries = read_manifest(folder)
    except InputError as error:
        return str(error)
    found = _files(folder)
    for name in sorted(entries.keys() | found if names is None else names):
        path = folder / name
        if name not in found:
            return f"{path}: listed in the manifest, but missing"
        if name not in entries:
            return f"{path}: not in the manifest"
        try:
            entry = _entry(path)
        except OSError as error:
            return f"{path}: cannot be read: {error.strerror}"
        if entry != entries[name]:
            return f"{path}: expected {_spell(entries[name])}, got {_spell(entry)}"
    return None


def _files(folder: Path) -> set[str]:
    inside = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in inside} - {MANIFEST, f".{MANIFEST}"}


def _entry(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _spell(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"{entry!r:.80}"
    return f"{entry.get('bytes')} bytes with sha256 {str(entry.get('sha256'))[:16]}…"
