"""Datasets of many files, or of a zip, as TFDS folders of a few ArrayRecord files; TensorFlow is not needed.

    python -m data.prepare emoji_noto64 --root FOLDER --to PREPARED       writes PREPARED/emoji_noto64/1.0.0

Such a folder is read where ROOT/NAME is or holds one, and by anything else that reads TFDS:
`tfds.builder_from_directory(folder).as_data_source("train")`. Without a root, what lies prepared below the variable
PERCEIVER_PREPARED goes before PERCEIVER_DATA.

TFDS' GeneratorBasedBuilder sorts splits above 1 GB through TensorFlow's files and refuses empty ones. So records are
written by its SequentialWriter: one after the other, in the order of the split. For datasets that take hours, `--beam`
has the workers of an Apache Beam pipeline read and write them (see `data.beam`), in the same order.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from data import shards
from data.beam import write_with_beam
from data.lazy import Lazy
from data.records import Layout, Record, Records, Rows
from data.root import folder
from perceiver.errors import InputError, naming

Item = TypeVar("Item")

VARIABLE = "PERCEIVER_PREPARED"
VERSION = "1.0.0"
SPLITS = ("train", "validation", "test")
RECORDS_PER_FILE = 10_000


Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Passes on what is worked through, and may show how far it is: what, a description, how many."""


def silently(sequence: Iterable[Any], description: str, total: int) -> Iterable[Any]:
    """Show nothing."""
    return sequence


def records(layout: Layout[Any], root: str | Path | None) -> dict[str, Records]:
    """Records by split, from the prepared form where there is one.

    Raises:
        InputError: the dataset is absent, damaged, divided otherwise or altogether empty.
    """
    shelf = os.environ.get(VARIABLE)
    built = shards.find(Path(shelf) / layout.name) if root is None and shelf else None
    place = built or folder(layout.name, root, layout.origin)
    built = built or shards.find(place)
    parts: dict[str, Records] = dict(_prepared(layout, built) if built else layout.records(place))
    if not any(len(part) for part in parts.values()):
        raise InputError(f"{place}: expected at least one item, got none")
    return parts


def _prepared(layout: Layout[Any], place: Path) -> dict[str, Records]:
    import tensorflow_datasets as tfds

    found = shards.read(place, tuple(layout.features(tfds)))
    if not set(found) <= set(SPLITS):
        raise InputError(f"{place}: expected the splits {', '.join(SPLITS)}, got {', '.join(found)}")
    return {name: found.get(name, Rows(str(place), (), dict)) for name in SPLITS}


def load(layout: Layout[Item], root: str | Path | None) -> dict[str, Sequence[Item]]:
    """Items by split, each read and decoded when it is asked for.

    Raises:
        InputError: see `records`.
    """
    parts = records(layout, root)
    return {name: items([(part, i) for i in range(len(part))], layout.item) for name, part in parts.items()}


def items(places: Sequence[tuple[Records, int]], make: Callable[[Record], Item]) -> Sequence[Item]:
    """Items of records that are told by where they are."""
    return Lazy(places, functools.partial(_item, make))


def _item(make: Callable[[Record], Item], place: tuple[Records, int]) -> Item:
    part, index = place
    record = part[index]
    with naming(part.where):
        return make(record)


def prepare(
    layout: Layout[Any],
    root: str | Path | None,
    to: str | Path,
    watch: Watch = silently,
    beam: Sequence[str] | None = None,
) -> Path:
    """Write the prepared form into TO/NAME/VERSION, then open and decode every record of it.

    Whatever fails, nothing is left behind.

    beam: options of an Apache Beam pipeline that does the writing.

    Returns:
        The TFDS folder.

    Raises:
        InputError: the dataset is absent, damaged or altogether empty, or prepared there already.
        MissingExtraError: `beam` without the extra of that name.
    """
    final = Path(to) / layout.name / VERSION
    if final.exists():
        raise InputError(f"{final}: prepared already; remove that folder to prepare it anew")
    place = folder(layout.name, root, layout.origin)
    parts = layout.records(place)
    if not any(len(part) for part in parts.values()):
        raise InputError(f"{place}: expected at least one item, got none")
    Path(to).mkdir(parents=True, exist_ok=True)
    # Beside the dataset's folder: inside it, a half-written one would be taken for prepared.
    work = Path(tempfile.mkdtemp(prefix=f".{layout.name}-", dir=to))
    try:
        if beam is None:
            written = _write(layout, parts, work, watch)
        else:
            written = write_with_beam(layout, parts, work, VERSION, beam)
        _check(layout, parts, written, watch)
        final.parent.mkdir(exist_ok=True)
        written.chmod(0o755)  # mkdtemp's are for the owner alone
        written.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _write(layout: Layout[Any], parts: dict[str, Rows], work: Path, watch: Watch) -> Path:
    import tensorflow_datasets as tfds

    identity = tfds.core.DatasetIdentity(
        name=layout.name, version=tfds.core.Version(VERSION), data_dir=str(work), module_name=f"data.{layout.name}"
    )
    writer = tfds.core.SequentialWriter(layout.info(identity), RECORDS_PER_FILE, file_format="array_record")
    writer.initialize_splits(list(parts))
    for name, part in parts.items():
        writer.add_examples({name: watch(part, f"writing {name}", len(part))})
    writer.close_all()
    return work


def _check(layout: Layout[Any], parts: dict[str, Rows], work: Path, watch: Watch) -> None:
    for name, part in _prepared(layout, work).items():
        if len(part) != len(parts[name]):
            raise InputError(f"{part.where}: expected {len(parts[name])} records, got {len(part)}")
        for index in watch(range(len(part)), f"checking {name}", len(part)):
            _item(layout.item, (part, index))
