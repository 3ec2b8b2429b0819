"""From a random-access source to batches, through Grain: seeded, from any number on, the same on any threads."""

import abc
import bisect
import functools
import hashlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np
from absl import flags

from perceiver.errors import InputError

Sample = Mapping[str, Any]
"""One sample: a tree of numpy arrays whose leaves have the same shapes in all samples."""

Batch = Mapping[str, Any]
"""The batch contract: {"inputs": {modality: array}, "masks": {modality: bool}, "targets": {name: array}}."""


class Source(Protocol):
    """What a dataset must offer: a length and items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Joined(Sequence[Any]):
    """Several sources one after the other, each read when its item is asked for."""

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self._ends = list(itertools.accumulate(len(source) for source in self._sources))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect.bisect_right(self._ends, index)
        return self._sources[which][int(index) - self._ends[which] + len(self._sources[which])]


class Kept(Sequence[Any]):
    """A source whose items stay in memory once they are read, for a dataset that fits; not those that are bad.

    change: what is done to each item when it is read, such as cutting off what is silent.
    """

    def __init__(self, source: Source, change: Callable[[Any], Any] = lambda item: item):
        self._source, self._change = source, change
        self._items: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if index not in self._items:
            self._items[index] = self._change(self._source[index])
        return self._items[index]


Transform = Callable[[Any, np.random.Generator], Sample]
"""An item to a sample. Its randomness comes from the generator alone, which is seeded per item and epoch."""


class Skipped:
    """The bad samples of a run: which were left out, and why. Threads and streams may share one.

    Each is said once, through `logging`. What is prepared ahead counts, whether or not the run comes to use it.

    most: how many different samples may be bad before the run ends.
    """

    def __init__(self, most: int = 10):
        self.most = most
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()
        self._says = True

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which notes in silence what this one will say."""
        return {"most": self.most, "_problems": self.problems, "_says": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by the sample's name, in the order of the names."""
        with self._lock:
            return dict(sorted(self._problems.items()))

    def add(self, name: str, problem: str) -> None:
        """Note a bad sample.

        Raises:
            InputError: there are more of them than `most`; lists them all.
        """
        with self._lock:
            new = name not in self._problems
            self._problems.setdefault(name, problem)
        if new and self._says:
            logging.getLogger(__name__).warning("skipped %s: %s", name, problem)
        if len(self) > self.most:
            listed = "".join(f"\n  {name}: {problem}" for name, problem in self.problems.items())
            raise InputError(f"more than {self.most} samples are bad, too many to skip:{listed}")

    def restore(self, problems: Mapping[str, str]) -> None:
        """Add what an earlier part of the run noted, without a word."""
        with self._lock:
            self._problems |= problems


class Stream(grain.MapDataset):
    """An endless row of batches, each of which depends on nothing but its number."""

    @abc.abstractmethod
    def shared(self, process: int, processes: int) -> "Stream":
        """What one of several processes makes of it: its rows of each batch, those of all in order being the batch."""

    @abc.abstractmethod
    def item_numbers(self, number: int) -> list[list[int]]:
        """Which items of its source are in a batch, counted from 0; for each source that it is made from."""

    @property
    @abc.abstractmethod
    def skipped(self) -> list[Skipped]:
        """Where bad samples are noted, for each source that it is made from."""


class _Batches(Stream):
    """Rows of batches of so many samples each."""

    def __init__(self, samples: grain.MapDataset, numbers: grain.MapDataset, size: int, rows: range, skipped: Skipped):
        super().__init__(samples)
        self._numbers, self._size, self._rows, self._skipped = numbers, size, rows, skipped

    def __len__(self) -> int:
        return len(self.parents[0]) // self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        return stack([self.parents[0][index * self._size + row] for row in self._rows])

    def shared(self, process: int, processes: int) -> "_Batches":
        """See Stream."""
        ends = [self._size * number // processes for number in (process, process + 1)]
        return _Batches(self.parents[0], self._numbers, self._size, range(*ends), self._skipped)

    def item_numbers(self, number: int) -> list[list[int]]:
        """See Stream."""
        return [[int(self._numbers[number * self._size + row]) for row in self._rows]]

    @property
    def skipped(self) -> list[Skipped]:
        """See Stream."""
        return [self._skipped]


class _Together(Stream):
    """Several streams side by side; see `together`."""

    def __init__(self, streams: Sequence[Stream]):
        super().__init__(streams)
        self._streams = list(streams)

    def __len__(self) -> int:
        return min(len(stream) for stream in self._streams)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        return merged([stream[index] for stream in self._streams])

    def shared(self, process: int, processes: int) -> "_Together":
        """See Stream."""
        return _Together([stream.shared(process, processes) for stream in self._streams])

    def item_numbers(self, number: int) -> list[list[int]]:
        """See Stream."""
        return [numbers for stream in self._streams for numbers in stream.item_numbers(number)]

    @property
    def skipped(self) -> list[Skipped]:
        """See Stream."""
        return [noted for stream in self._streams for noted in stream.skipped]


def training_stream(
    source: Source,
    transform: Transform,
    *,
    seed: int,
    batch: int,
    skipped: Skipped | None = None,
    name: str = "item",
) -> Stream:
    """An endless stream of batches, reshuffled each epoch.

    In place of an item that cannot be read or transformed (an InputError) comes the next of the source that can, with
    the randomness that the bad one would have had: so a batch depends on nothing but its number.

    skipped: where bad items are noted, which ends the run when there are too many; unless given, one of its own.
    name: what an item is called there, with its number in the source; streams that share `skipped` need one each.

    Raises:
        InputError: an empty source.
    """
    if len(source) == 0:
        raise InputError("the training source is empty")
    noted = Skipped() if skipped is None else skipped
    draw = functools.partial(_first_good, source=source, transform=transform, skipped=noted, name=name)
    numbers = grain.MapDataset.source(range(len(source))).seed(seed).shuffle()
    return _Batches(numbers.random_map(draw).repeat(), numbers, batch, range(batch), noted)


def _first_good(
    number: int, rng: np.random.Generator, *, source: Source, transform: Transform, skipped: Skipped, name: str
) -> Sample:
    """The item's sample, or that of the first good one behind it. What was bad before is tried again: whether an item
    is good may depend on its randomness, and a resumed run knows nothing of other batches.
    """
    start, count = rng.bit_generator.state, len(source)
    for place in ((number + step) % count for step in range(count)):
        try:
            return transform(source[place], rng)
        except InputError as error:
            problem = str(error)
        skipped.add(f"{name} {place}", problem)
        rng.bit_generator.state = start
    raise InputError(f"all {count} samples of the training source are bad; {name} {place}: {problem}")


def together(streams: Sequence[Stream]) -> Stream:
    """Several streams as one: row i of each batch holds the i-th sample of every stream, side by side.

    No two streams may give an input or a target of the same name.
    """
    return _Together(streams)


def merged(batches: Sequence[Batch]) -> Batch:
    """Join the groups ("inputs", "masks", "targets") of several batches of equal size.

    Raises:
        InputError: a name occurs twice in a group.
    """
    whole: dict[str, dict[str, Any]] = {}
    for batch in batches:
        for group, values in batch.items():
            twice = whole.setdefault(group, {}).keys() & values.keys()
            if twice:
                raise InputError(f"two streams both give {group}[{min(twice)!r}]")
            whole[group] |= values
    return whole


class _Noting(grain.MapDataset):
    """A stream whose batches come with what is known by then of its bad samples; made in another process."""

    def __init__(self, stream: Stream):
        super().__init__(stream)
        self._stream = stream

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        return self._stream[index], [noted.problems for noted in self._stream.skipped]


class Batches(Iterator[Batch]):
    """See `iterate`."""

    def __init__(self, prepared: grain.DatasetIterator, skipped: Sequence[Skipped] | None):
        self._prepared, self._skipped = prepared, skipped

    def __next__(self) -> Batch:
        if self._skipped is None:
            return next(self._prepared)
        batch, noted = next(self._prepared)
        for skipped, problems in zip(self._skipped, noted, strict=True):
            for name, problem in problems.items():
                skipped.add(name, problem)
        return batch

    def close(self) -> None:
        """End the threads and processes behind it."""
        self._prepared.close()


def iterate(stream: Stream, start: int = 0, threads: int = 2, ahead: int = 4, processes: int = 0) -> Batches:
    """The batches from number `start` on, the same however they are prepared; close it when done.

    threads: that prepare batches, `ahead` of them, in the background. processes: that do so instead, where Python's
    lock would let threads wait for each other; they take seconds to start, and each reads the dataset for itself.
    """
    if not processes:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return Batches(iter(stream[start:].to_iter_dataset(options)), None)
    if not flags.FLAGS.is_parsed():  # Grain asks for flags of its own, which no command line of ours has
        flags.FLAGS.mark_as_parsed()
    alone = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    several = grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=-(-ahead // processes))
    noting = _Noting(stream)[start:].to_iter_dataset(alone).mp_prefetch(several)
    return Batches(iter(noting), stream.skipped)


def digest(batch: Batch) -> str:
    """The sha256 of a batch: of the names, shapes, dtypes and values of its arrays."""
    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        array = np.ascontiguousarray(leaf)
        whole.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        whole.update(array.data if array.size else b"")
    return whole.hexdigest()


def in_batches(samples: Sequence[Sample], batch: int) -> Iterator[tuple[Batch, int]]:
    """All samples once, in order, with the count of real ones: the last batch is filled by repeating the last sample,
    so that every batch has the same shape and nothing recompiles.
    """
    for start in range(0, len(samples), batch):
        part = [samples[min(start + i, len(samples) - 1)] for i in range(batch)]
        yield stack(part), min(batch, len(samples) - start)


def stack(samples: Sequence[Any]) -> Any:
    """Stack the leaves of equal trees."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {name: stack([sample[name] for sample in samples]) for name in first}
    return np.stack([np.asarray(sample) for sample in samples])
