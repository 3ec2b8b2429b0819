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


def together(streams: Mapping[str, grain.MapDataset]) -> grain.MapDataset:
    """Batches of several streams side by side: {name: batch of that stream}."""
    names = list(streams)
    zipped = grain.experimental.ZipMapDataset([streams[name] for name in names])
    return zipped.map(lambda batches: dict(zip(names, batches, strict=True)))


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


def stack(samples: Sequence[Sample]) -> Batch:
    """Stack the leaves of equal trees."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {name: stack([sample[name] for sample in samples]) for name in first}  # type: ignore[return-value]
    return np.stack([np.asarray(sample) for sample in samples])  # type: ignore[return-value]
