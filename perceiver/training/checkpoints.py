"""Checkpoints of a training run: arrays and a small record, such as the place in the data, through Orbax.

This is the only module that knows Orbax. Arrays are stored by name, so that no container class is part of the format.
A checkpoint is written aside and moved into place, then sealed with the sha256 of its files: one without that was not
finished and does not count, and one that differs from it is damaged, said so, and set aside.
"""

import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from perceiver.errors import InputError
from perceiver.saving import MANIFEST
from perceiver.training.manifest import damage, seal, sealed
from perceiver.training.processes import first, meet

Record = Mapping[str, Any]

DAMAGED = "damaged"
"""Folder beside the checkpoints, for those that are no longer what was written."""

LISTED = "_CHECKPOINT_METADATA"
"""The file of a step that Orbax reads as soon as it lists the steps; it raises where that cannot be read."""


class SaveError(RuntimeError):
    """A checkpoint could not be written; the message says which, why, and which is the newest there is."""


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` of them stay.

    Use as a context manager: leaving it waits for the save under way.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self._keep = folder.resolve(), keep
        self._saving: threading.Thread | None = None
        self._failure: tuple[int, BaseException] | None = None
        self._damaged: list[str] = []
        if first():
            for path in self._newest_first():
                if not sealed(path):
                    shutil.rmtree(path)
            self._set_aside(whole=False)
        meet("unfinished checkpoints are gone")
        self._checkpointer = ocp.training.Checkpointer(self.folder, cleanup_tmp_directories=True)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failure = None
        try:
            self.wait()
        except SaveError as error:
            failure = error
        try:
            self._checkpointer.close()
        except Exception as error:  # Orbax raises again what failed, of any kind
            failure = failure or SaveError(f"{self.folder}: a checkpoint could not be saved: {error}")
        if failure is not None and kind is None:  # else what ended the run matters more
            raise failure

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, in order."""
        return sorted(int(path.name) for path in self._newest_first() if sealed(path))

    @property
    def newest(self) -> int | None:
        """Step of the newest checkpoint."""
        return max(self.steps, default=None)

    def save(self, step: int, state: Any, record: Record) -> None:
        """Start saving; the arrays are copied before this returns, the writing goes on beside the training.

        state: a pytree of arrays. record: JSON.

        Raises:
            SaveError: this save, or the one before, failed; such as on a full disk. Earlier checkpoints stay.
        """
        self.wait()
        try:
            writing = self._checkpointer.save_checkpointables_async(
                step, {"state": _named(state)}, custom_metadata=dict(record), force=True
            )
        except (OSError, ValueError) as error:  # ValueError: how tensorstore says that a file cannot be written
            self._failure = step, error
            self._give_up()
        self._saving = threading.Thread(target=self._finish, args=(step, writing))
        self._saving.start()

    def _finish(self, step: int, writing: Any) -> None:
        try:
            writing.result()
            if first():
                seal(self.folder / str(step))
                self._rotate()
        except BaseException as error:  # raised by `wait`, in the run's own thread
            self._failure = step, error

    def _rotate(self) -> None:
        """Remove the oldest, now that there is one more; first what says that it is whole, should this be cut short."""
        for path in self._newest_first()[self._keep :]:
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)

    def wait(self) -> None:
        """Until every save is on disk.

        Raises:
            SaveError: one failed.
        """
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        if self._failure is not None:
            self._give_up()

    def _give_up(self) -> None:
        """Remove what a failed save left, which may be what fills the disk, and say so."""
        assert self._failure is not None
        (step, error), self._failure = self._failure, None
        for path in self.folder.glob(f"{step}*"):
            if path.name.partition(".")[0] == str(step) and not sealed(path):
                shutil.rmtree(path, ignore_errors=True)
        self._checkpointer.reload()
        kept = "none was saved before" if self.newest is None else f"step {self.newest} is kept"
        raise SaveError(f"{self.folder}: step {step} could not be saved: {error}\n{kept}") from error

    def restore(self, state: Any) -> tuple[Any, Record, int] | None:
        """The newest checkpoint that is as it was written: the state in the structure of `state`, on its devices, the
        record and the step. None where there is no checkpoint at all.

        Newer ones that are damaged are named in a warning and moved to the folder `damaged` beside.

        Raises:
            InputError: the checkpoint holds other arrays than `state` (lists them all); or all are damaged.
        """
        if first():
            self._set_aside(whole=True)
        meet("damaged checkpoints are gone")
        self._checkpointer.reload()
        step = self.newest
        if step is None:
            if self._damaged:
                raise InputError(
                    "\n  ".join([f"{self.folder}: no checkpoint is as it was written:", *self._damaged])
                    + f"\nThey are in {self.folder.parent / DAMAGED} now; the same command starts from the beginning"
                )
            return None
        wanted = _named(state)
        saved = self._checkpointer.metadata(step)
        _compare(wanted, saved.metadata, f"{self.folder}, step {step}")
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), wanted)
        loaded = self._checkpointer.load_checkpointables(step, {"state": abstract})
        tree = jax.tree.structure(state)
        return jax.tree.unflatten(tree, [loaded["state"][name] for name in wanted]), saved.custom_metadata, step

    def _newest_first(self) -> list[Path]:
        """Folders of the steps, as they lie on the disk."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if path.name.isdigit()), key=lambda p: -int(p.name))

    def _set_aside(self, whole: bool) -> None:
        """Move damaged checkpoints away, and note what is wrong with each.

        Looks at what Orbax reads of each step only to list them; with `whole`, also at every file of the newest, until
        one is as it was written.
        """
        for path in self._newest_first():
            problem = damage(path, None if whole else {LISTED})
            if problem is None:
                whole = False
                continue
            self._damaged.append(f"step {path.name}: {problem}")
            logging.getLogger(__name__).warning("damaged checkpoint, not used: step %s: %s", path.name, problem)
            place = self.folder.parent / DAMAGED
            place.mkdir(exist_ok=True)
            taken = sum(1 for _ in place.glob(f"{path.name}.*"))
            shutil.move(path, place / f"{path.name}.{taken}")


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
