"""Ragged inputs without recompiling: a batch is padded to the smallest of a few declared budgets that holds it.

Adapters pad every sample to their whole budget, which compiles one program and wastes work on short samples. Buckets
cut a padded batch back to a length in between, so that at most as many programs are compiled as there are buckets,
and no answer changes: what is cut off is masked.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.config import freeze
from perceiver.errors import ConfigError, InputError
from perceiver.pipeline import Batch


def powers_of_two(smallest: int, largest: int) -> tuple[int, ...]:
    """`smallest`, twice as much, and so on, up to and with `largest`."""
    if not 1 <= smallest <= largest:
        raise ConfigError(f"powers_of_two: expected 1 <= smallest <= largest, got {smallest} and {largest}")
    lengths = []
    while smallest < largest:
        lengths.append(smallest)
        smallest *= 2
    return (*lengths, largest)


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Lengths that batches are cut to, by modality, smallest first; the last is the adapter's whole budget.

    lengths: elements along the first axis behind the batch: points, bytes, samples of sound, time steps. With several
        modalities all have equally many lengths, and a batch takes the first place in these rows at which everything
        fits: so there are at most as many shapes as places, not as many as combinations.
    follows: by target, the modality whose elements it has a value for (the classes of points), to be cut with it.
    """

    lengths: Mapping[str, tuple[int, ...]]
    follows: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", freeze(self.lengths))
        object.__setattr__(self, "follows", freeze(self.follows))
        counts = {name: len(row) for name, row in self.lengths.items()}
        if not counts or len(set(counts.values())) > 1 or 0 in counts.values():
            raise ConfigError(f"Buckets.lengths: expected equally many lengths for each modality, got {counts}")
        for name, row in self.lengths.items():
            if min(row) < 1 or list(row) != sorted(row):
                raise ConfigError(f"Buckets.lengths[{name!r}]: expected positive lengths, smallest first, got {row}")
        for target, name in self.follows.items():
            if name not in self.lengths:
                raise ConfigError(f"Buckets.follows[{target!r}]: no lengths for the modality {name!r}")

    @property
    def count(self) -> int:
        """How many shapes there can be at most."""
        return len(next(iter(self.lengths.values())))

    def trimmed(self, batch: Batch) -> Batch:
        """The batch with every ragged modality, its mask and what follows it cut to one place of the lengths.

        batch: host arrays, padded to the whole budgets. A modality without a mask of its elements [b, n] counts as
        full; modalities that the batch or the lengths lack are left alone.

        Raises:
            InputError: an input that is longer than its last length, or a target of another length than its modality.
        """
        inputs, masks = dict(batch["inputs"]), dict(batch.get("masks") or {})
        here = [name for name in self.lengths if name in inputs]
        if not here:
            return batch
        place = max(self._place(name, np.asarray(inputs[name]), masks.get(name)) for name in here)
        cut: dict[str, Any] = {**batch, "inputs": inputs}
        for name in here:
            length, mask = self.lengths[name][place], masks.get(name)
            if mask is not None and _elements(mask, inputs[name]):
                masks[name] = np.asarray(mask)[:, :length]
            inputs[name] = np.asarray(inputs[name])[:, :length]
        if masks:
            cut["masks"] = masks
        if "targets" in batch:
            cut["targets"] = {
                name: self._target(name, np.asarray(values), batch["inputs"], place)
                for name, values in batch["targets"].items()
            }
        return cut

    def _place(self, name: str, raw: np.ndarray, mask: Any) -> int:
        """The first place whose length holds the last real element of the batch."""
        longest = raw.shape[1]
        if mask is not None and _elements(mask, raw):
            used = np.flatnonzero(np.asarray(mask).any(axis=0))
            longest = int(used[-1]) + 1 if len(used) else 1
        row = self.lengths[name]
        if longest > row[-1]:
            raise InputError(f"inputs[{name!r}]: expected at most {row[-1]} elements, the last bucket, got {longest}")
        return int(np.searchsorted(row, longest))

    def _target(self, name: str, values: np.ndarray, inputs: Mapping[str, Any], place: int) -> np.ndarray:
        modality = self.follows.get(name)
        if modality is None or modality not in inputs:
            return values
        count = np.asarray(inputs[modality]).shape[1]
        if values.ndim < 2 or values.shape[1] != count:
            raise InputError(
                f"targets[{name!r}]: expected shape (b, {count}, ...), as inputs[{modality!r}] has, got {values.shape}"
            )
        return values[:, : self.lengths[modality][place]]


def _elements(mask: Any, raw: Any) -> bool:
    """Whether a mask is of single elements along the axis that is cut, not of whole samples."""
    return np.ndim(mask) == 2 and np.shape(mask) == np.shape(raw)[:2]
