"""Checkpoints of a training run: arrays, the data iterator's position and a small record, through Orbax.

This is the only module that knows Orbax. Arrays are stored by name, so that no container class is part of the format.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from perceiver.errors import InputError

Record = Mapping[str, Any]


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` of them stay.

    Use as a context manager: leaving it waits for the save under way.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.resolve()
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(self.folder, preservation_policy=policy)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    @property
    def newest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: Any, iterator: Any, record: Record) -> None:
        """Start saving; the arrays are copied before this returns, the writing goes on beside the training.

        state: a pytree of arrays. iterator: a Grain iterator. record: JSON.
        """
        self._checkpointer.save_checkpointables_async(
            step, {"state": _named(state), "data": iterator}, custom_metadata=dict(record), force=True
        )

    def restore(self, state: Any, iterator: Any) -> tuple[Any, Record, int]:
        """The newest checkpoint: the state in the structure of `state`, its record and step; moves `iterator`.

        Raises:
            InputError: the checkpoint holds other arrays than `state`; lists them all.
        """
        step = self.newest
        if step is None:
            raise InputError(f"{self.folder}: expected a checkpoint, there is none")
        wanted = _named(state)
        saved = self._checkpointer.metadata(step)
        _compare(wanted, saved.metadata, f"{self.folder}, step {step}")
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), wanted)
        loaded = self._checkpointer.load_checkpointables(step, {"state": abstract, "data": iterator})
        tree = jax.tree.structure(state)
        return jax.tree.unflatten(tree, [loaded["state"][name] for name in wanted]), saved.custom_metadata, step

    def wait(self) -> None:
        """Until every save is on disk."""
        self._checkpointer.wait()


def _named(state: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _compare(wanted: Mapping[str, jax.Array], saved: Mapping[str, Any], where: str) -> None:
    problems = [f"missing {name}" for name in wanted.keys() - saved.keys()]
    problems += [f"unexpected {name}" for name in saved.keys() - wanted.keys()]
    for name in wanted.keys() & saved.keys():
        if tuple(saved[name].shape) != wanted[name].shape:
            problems.append(f"{name}: expected shape {wanted[name].shape}, got {tuple(saved[name].shape)}")
    if problems:
        raise InputError(f"{where}: the checkpoint is of another model:\n  " + "\n  ".join(sorted(problems)))
