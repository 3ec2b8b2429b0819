"""Sequences whose items are made when they are asked for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, eq=False)
class Lazy(Sequence[Item], Generic[Item]):
    """Item i is make(keys[i]), made anew at each access; whatever is wrong with it is raised then."""

    keys: Sequence[Any] = dataclasses.field(repr=False)
    make: Callable[[Any], Item]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Lazy(self.keys[index], self.make)
        return self.make(self.keys[index])
