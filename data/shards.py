"""Reading TFDS folders of ArrayRecord files, without TensorFlow: records in random order, with images left encoded."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data.records import Records
from perceiver.errors import InputError, naming
from perceiver.io.files import refusing


@dataclasses.dataclass(frozen=True, eq=False)
class Shards(Records):
    """One split. source: of TFDS; fields: what is wanted of a record; texts: the fields that hold text."""

    where: str
    source: Sequence[Any] = dataclasses.field(repr=False)
    fields: tuple[str, ...]
    texts: frozenset[str]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"{self.where}: record {index} of {len(self)}")
        with naming(f"{self.where}, record {index}"), refusing("a whole record"):
            found = self.source[index]
            missing = [name for name in self.fields if found.get(name) is None]
            if missing:  # a file that was cut at a certain place gives records of nothing
                raise InputError(f"expected the field {missing[0]!r}, got nothing: the file is damaged")
            return {name: _text(found[name]) if name in self.texts else found[name] for name in self.fields}

    def column(self, field: str) -> list[Any]:
        """Every record is read for it."""
        return [record[field] for record in self]


def _text(value: Any) -> str | tuple[str, ...]:
    return value.decode() if isinstance(value, bytes) else tuple(one.decode() for one in value)


def find(place: Path) -> Path | None:
    """The TFDS folder at or anywhere below a folder.

    Raises:
        InputError: several.
    """
    found = sorted(path.parent for path in place.rglob("dataset_info.json"))
    if len(found) > 1:
        raise InputError(f"{place}: expected one prepared dataset, got {', '.join(map(str, found))}")
    return found[0] if found else None


def read(place: Path, fields: Sequence[str]) -> dict[str, Shards]:
    """Open a TFDS folder: its splits, each record with the fields asked for.

    Raises:
        InputError: damaged, not of ArrayRecord files, other fields, or a file with another number of records.
    """
    import tensorflow_datasets as tfds

    with naming(str(place)), refusing("a TFDS folder of ArrayRecord files"):
        builder = tfds.builder_from_directory(place)
        known = builder.info.features
        missing = [name for name in fields if name not in known]
        if missing:
            raise InputError(f"expected the field {missing[0]!r}, got {sorted(known)}")
        encoded = {name: tfds.decode.SkipDecoding() for name in known if isinstance(known[name], tfds.features.Image)}
        texts = frozenset(
            name for name in known if isinstance(getattr(known[name], "feature", known[name]), tfds.features.Text)
        )
        parts = {}
        for name, split in builder.info.splits.items():
            _check_lengths(split.file_instructions if split.num_examples else ())
            source = builder.as_data_source(name, decoders=encoded) if split.num_examples else ()
            parts[name] = Shards(f"{place}, split {name}", source, tuple(fields), texts)
    return parts


def _check_lengths(instructions: Iterable[Any]) -> None:
    """TFDS believes what dataset_info.json says; compare it with the files."""
    from array_record.python.array_record_module import ArrayRecordReader

    for one in instructions:
        with naming(os.path.basename(one.filename)), refusing("an ArrayRecord file"):
            reader = ArrayRecordReader(os.fspath(one.filename))
            count = reader.num_records()
            reader.close()
            if count != one.examples_in_shard:
                raise InputError(f"expected {one.examples_in_shard} records, got {count}: the file is damaged")
