"""Finding things by their embeddings: an index, exact search over it, and what a search is worth."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from perceiver.errors import InputError, naming, require
from perceiver.saving import dump, parse, read_folder, write_folder
from perceiver.training.evaluation import Judged, Sums
from perceiver.typing import Bool, Float, Int

ENTRIES, VECTORS = "entries.json", "embeddings.safetensors"
BLOCK = 65_536
"""Entries whose similarities are held at once, for each query."""
AMONG = (1, 5, 10)


class Found(NamedTuple):
    """The best entries of each query, best first: cosines and numbers of entries, [q, k]."""

    cosines: Float[np.ndarray, "q k"]
    numbers: Int[np.ndarray, "q k"]


@dataclasses.dataclass(frozen=True)
class Index:
    """Embedded things.

    vectors: float32 [n, c], of length 1. names: of each, such as its file, or the text itself. modalities: of each.
    model: where the model is that embedded them. digest: of that model, see `embedding.digest_of`.
    """

    vectors: Float[np.ndarray, "n c"]
    names: tuple[str, ...]
    modalities: tuple[str, ...]
    model: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not len(self.vectors) == len(self.names) == len(self.modalities) > 0:
            raise InputError(
                f"Index: expected a vector, a name and a modality for each entry, got {self.vectors.shape}, "
                f"{len(self.names)} and {len(self.modalities)}"
            )
        if not np.isfinite(self.vectors).all():
            raise InputError("Index: expected finite vectors, got NaN or infinity")

    def save(self, folder: str | Path) -> Path:
        """Write a folder, which replaces an older one when it is complete."""
        entries = {
            "names": self.names,
            "modalities": self.modalities,
            "model": self.model,
            "digest": self.digest,
        }
        vectors = save({"vectors": np.ascontiguousarray(self.vectors, np.float32)})
        return write_folder(folder, {ENTRIES: dump(entries), VECTORS: vectors})

    @staticmethod
    def load(folder: str | Path) -> "Index":
        """Read what `save` wrote.

        Raises:
            InputError: no such folder, not an index, or damaged.
        """
        files = read_folder(folder)
        if not {ENTRIES, VECTORS} <= files.keys():
            raise InputError(f"{folder}: expected an index, with {ENTRIES} and {VECTORS}, got {', '.join(files)}")
        entries = parse(files[ENTRIES], Path(folder) / ENTRIES)
        with naming(str(folder)):
            try:
                vectors = load(files[VECTORS])["vectors"]
                names, modalities = tuple(entries["names"]), tuple(entries["modalities"])
                return Index(vectors, names, modalities, entries["model"], entries["digest"])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"expected an index, got {error}") from error

    def only(self, modalities: Iterable[str]) -> "Index":
        """The entries of some modalities.

        Raises:
            InputError: there are none.
        """
        wanted = set(modalities)
        kept = [number for number, modality in enumerate(self.modalities) if modality in wanted]
        if not kept:
            there = ", ".join(sorted(set(self.modalities)))
            raise InputError(f"expected entries of {', '.join(sorted(wanted))}, the index has {there}")
        names, own = ([column[i] for i in kept] for column in (self.names, self.modalities))
        return dataclasses.replace(self, vectors=self.vectors[kept], names=tuple(names), modalities=tuple(own))

    def search(self, queries: Float[np.ndarray, "q c"], count: int) -> Found:
        """The entries that are nearest to each query: all are compared, on all devices of this process.

        Raises:
            InputError: queries of another width, or a count below 1.
        """
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise InputError(f"queries: expected [q, {self.vectors.shape[1]}], got {queries.shape}")
        if count < 1:
            raise InputError(f"count: expected at least 1, got {count}")
        return nearest(self.vectors, queries, min(count, len(self.names)))

    def approximate(self, links: int = 32, breadth: int = 128) -> "Approximate":
        """A graph over the entries that answers without comparing all (HNSW, arXiv 1603.09320), for large sets.

        links: of each entry. breadth: candidates that are kept while searching; more find more, slower.

        Raises:
            MissingExtraError: faiss is not installed.
        """
        return Approximate(self, links, breadth)


class Approximate:
    """See Index.approximate; searched in the same way."""

    def __init__(self, index: Index, links: int, breadth: int):
        faiss = require("faiss", "faiss")
        self._graph = faiss.IndexHNSWFlat(index.vectors.shape[1], links, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efSearch = breadth
        self._graph.hnsw.efConstruction = max(breadth, 2 * links)
        self._graph.add(np.ascontiguousarray(index.vectors, np.float32))

    def search(self, queries: Float[np.ndarray, "q c"], count: int) -> Found:
        """As Index.search, but some of the nearest may be missing; -1 where nothing was found."""
        return Found(*self._graph.search(np.ascontiguousarray(queries, np.float32), count))


def nearest(vectors: Float[np.ndarray, "n c"], queries: Float[np.ndarray, "q c"], count: int) -> Found:
    """The `count` rows of largest inner product with each query; equal ones in their order. Exact, in float32."""
    devices = jax.local_devices()
    each = -(-len(vectors) // len(devices))
    block = min(BLOCK, max(each, count))
    rows = len(devices) * block * -(-each // block)
    padded = np.zeros((rows, vectors.shape[1]), np.float32)
    padded[: len(vectors)] = vectors
    mesh = jax.make_mesh((len(devices),), ("shard",), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))
    cosines, numbers = jax.device_get(
        _nearest(mesh, block, count, padded, np.int32(len(vectors)), np.asarray(queries, np.float32))
    )
    return Found(cosines, numbers)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _nearest(mesh: Any, block: int, count: int, vectors: jax.Array, real: jax.Array, queries: jax.Array) -> Any:
    cut, everywhere = jax.sharding.PartitionSpec("shard"), jax.sharding.PartitionSpec()

    def here(vectors: jax.Array, real: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jax.lax.axis_index("shard") * len(vectors)

        def look(best: tuple[jax.Array, jax.Array], part: tuple[jax.Array, jax.Array]) -> Any:
            rows, start = part
            numbers = first + start + jnp.arange(block, dtype=jnp.int32)
            cosines = jnp.matmul(queries, rows.T, precision=jax.lax.Precision.HIGHEST)
            cosines = jnp.where(numbers < real, cosines, -jnp.inf)
            both = jnp.concatenate([best[0], cosines], axis=1)
            whose = jnp.concatenate([best[1], jnp.broadcast_to(numbers, cosines.shape)], axis=1)
            return _top(both, whose), None

        none = jnp.full((len(queries), count), -jnp.inf), jnp.full((len(queries), count), -1, jnp.int32)
        starts = jnp.arange(0, len(vectors), block, dtype=jnp.int32)
        blocks = vectors.reshape(-1, block, vectors.shape[1]), starts
        (cosines, numbers), _ = jax.lax.scan(look, none, blocks)
        gathered = (jax.lax.all_gather(each, "shard", axis=1, tiled=True) for each in (cosines, numbers))
        return _top(*gathered)

    def _top(cosines: jax.Array, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        top, places = jax.lax.top_k(cosines, count)
        return top, jnp.take_along_axis(numbers, places, axis=1)

    mapped = jax.shard_map(
        here, mesh=mesh, in_specs=(cut, everywhere, everywhere), out_specs=everywhere, check_vma=False
    )
    return mapped(vectors, real, queries)


# --- what a search is worth -------------------------------------------------------------------------------------------


def ranks(similarities: Float[np.ndarray, "q n"], positive: Bool[np.ndarray, "q n"]) -> Int[np.ndarray, "q"]:
    """How many wrong candidates are at least as near as the nearest right one, for each query: 0 is a hit.

    Equally near counts against the model, so that one which says the same of everything gets nothing for it. -1 where
    no candidate is right.
    """
    similarities, positive = np.asarray(similarities, np.float64), np.asarray(positive, bool)
    best = np.where(positive, similarities, -np.inf).max(axis=1, keepdims=True)
    before = (~positive & ~(similarities < best)).sum(axis=1)
    return np.where(positive.any(axis=1), before, -1)


def retrieved(
    items: Sequence[str],
    similarities: Float[np.ndarray, "q n"],
    positive: Bool[np.ndarray, "q n"],
    candidates: Sequence[str],
    among: Sequence[int] = AMONG,
) -> Judged:
    """Of each query that has a right candidate: recall at k, whether one is among the k nearest; and the mean of
    1 / place of the nearest right one (mean reciprocal rank), which is smoother and good to choose models by.

    items: names of the queries; candidates: of what is searched.
    """
    rank = ranks(similarities, positive)
    asked = rank >= 0
    top = np.asarray(similarities).argmax(axis=1)
    lines = [
        {"item": item, "rank": int(own), "nearest": candidates[first], "hit": bool(own == 0)}
        for item, own, first in zip(items, rank, top, strict=True)
    ]
    counts: dict[str, np.ndarray] = {f"at_{k}": asked & (rank < k) for k in among}
    counts["reciprocal"] = np.where(asked, 1.0 / (np.maximum(rank, 0) + 1.0), 0.0)

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        number = np.maximum(sums["all"], 1)
        recalls = {f"recall_at_{k}": sums[f"at_{k}"] / number for k in among}
        return recalls | {"mean_reciprocal_rank": sums["reciprocal"] / number}

    return Judged(lines, counts | {"all": asked}, figures)


def both_ways(
    left: tuple[Sequence[str], np.ndarray], right: tuple[Sequence[str], np.ndarray], positive: Bool[np.ndarray, "n m"]
) -> tuple[Judged, Judged]:
    """Names and vectors of two modalities: the right for each left one, and the left for each right one."""
    similarities = np.asarray(left[1], np.float64) @ np.asarray(right[1], np.float64).T
    return (
        retrieved(left[0], similarities, positive, right[0]),
        retrieved(right[0], similarities.T, positive.T, left[0]),
    )


def shuffled(positive: Bool[np.ndarray, "n m"], seed: int = 0) -> Bool[np.ndarray, "n m"]:
    """Which pairs are right, with the candidates dealt anew: the control that a search has to beat."""
    return positive[:, np.random.default_rng(seed).permutation(positive.shape[1])]
