"""Records of a dataset before they become items, whether they come from its own files or from a TFDS folder."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

Record = Mapping[str, Any]
"""One item as stored: texts, tuples of texts, numbers, arrays, and encoded images as bytes."""


class Records(Sequence[Record], abc.ABC):
    """Records of one split. where: the folder that they come from, for errors."""

    where: str

    @abc.abstractmethod
    def column(self, field: str) -> list[Any]:
        """One of the light fields of every record, in order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows(Records):
    """From a dataset's own files. rows: the light fields; whole: adds what takes a file to be read."""

    where: str
    rows: Sequence[Record] = dataclasses.field(repr=False)
    whole: Callable[[Record], Record]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.whole(self.rows[index])

    def column(self, field: str) -> list[Any]:
        """No file is read for it."""
        return [row[field] for row in self.rows]


@dataclasses.dataclass(frozen=True)
class Layout(Generic[Item]):
    """How a dataset is read that can also be prepared.

    Attributes:
        name: of its folder.
        origin: where to get it.
        licence: of the data.
        features: the module tensorflow_datasets to the TFDS features of a record. Images are given encoded.
        records: the dataset's own folder to records by split.
        item: a record to an item. Its errors name the file, `prepared.load` the folder.
    """

    name: str
    origin: str
    licence: str
    features: Callable[[Any], dict[str, Any]]
    records: Callable[[Path], dict[str, Rows]]
    item: Callable[[Record], Item]

    def info(self, builder: Any) -> Any:
        """What TFDS notes of the prepared form. builder: TFDS' builder or identity of the dataset."""
        import tensorflow_datasets as tfds

        return tfds.core.DatasetInfo(
            builder=builder,
            description=f"{self.name}, from {self.origin}",
            features=tfds.features.FeaturesDict(self.features(tfds)),
            disable_shuffling=True,
            license=self.licence,
        )
