"""From a random-access source to batches, through Grain: seeded, resumable, the same on any number of threads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from perceiver.errors import InputError

Sample = Mapping[str, Any]
"""One sample: a tree of numpy arrays whose leaves have the same shapes in all samples."""

Batch = Mapping[str, Any]
"""The batch contract: {"inputs": {modality: array}, "masks": {modality: bool}, "targets": {name: array}}."""


class Source(Protocol):
    """What a dataset must offer: a length and items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


Transform = Callable[[Any, np.random.Generator], Sample]
"""An item to a sample. Its randomness comes from the generator alone, which is seeded per item and epoch."""


def training_stream(source: Source, transform: Transform, *, seed: int, batch: int) -> grain.MapDataset:
    """An endless stream of batches, reshuffled each epoch.

    Raises:
        InputError: an empty source.
    """
    if len(source) == 0:
        raise InputError("the training source is empty")
    items = grain.MapDataset.source(source).seed(seed).shuffle()
    return items.random_map(transform).repeat().batch(batch, drop_remainder=True)


def together(streams: Sequence[grain.MapDataset]) -> grain.MapDataset:
    """Several streams as one: row i of each batch holds the i-th sample of every stream, side by side.

    No two streams may give an input or a target of the same name.
    """
    return grain.experimental.ZipMapDataset(list(streams)).map(merged)


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


def iterate(stream: grain.MapDataset, threads: int = 2, ahead: int = 4) -> grain.DatasetIterator:
    """An iterator with a position that can be saved; `ahead` batches are prepared by `threads` in the background."""
    return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)))


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
