"""Steps whose loss or gradients are not finite: they change nothing, are counted, and too many of them end a run."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from perceiver.saving import dump
from perceiver.training.processes import first

if TYPE_CHECKING:
    from perceiver.training.trainer import Trainer, TrainState

Tree = TypeVar("Tree")
NAME = "nonfinite.json"


class TrainingError(RuntimeError):
    """The run cannot go on; the message says where it stopped and what to try."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NonFinite:
    """Steps that were left out: how many without a good one between, how many in all, and the last; int32 scalars."""

    in_a_row: jax.Array
    total: jax.Array
    last: jax.Array

    @staticmethod
    def none() -> "NonFinite":
        """Of a run that has not begun."""
        return NonFinite(*(jnp.asarray(0, jnp.int32) for _ in range(3)))

    def after(self, finite: jax.Array, step: jax.Array) -> "NonFinite":
        """The counts behind a step, counted from 1."""
        return NonFinite(
            jnp.where(finite, 0, self.in_a_row + 1),
            self.total + jnp.where(finite, 0, 1),
            jnp.where(finite, self.last, step),
        )


def kept_where(finite: jax.Array, new: Tree, old: Tree) -> Tree:
    """The new tree, or all of the old one."""
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def describe(trainer: "Trainer", state: "TrainState", ahead: int, workdir: Path) -> Path:
    """Write what is known of the last step that was left out: its samples, loss, and gradients by part of the model.

    ahead: by how many batches the data is ahead of the steps.
    """
    step, stream = int(state.faults.last), trainer.experiment.stream
    number = step - 1 + ahead
    # Nothing has changed since but the number of the step, which the randomness depends on.
    then = dataclasses.replace(state, step=jnp.asarray(step - 1, jnp.int32))
    held = stream[number]
    loss, norms = jax.jit(lambda *given: _norms(trainer, *given))(then, held)
    found = {
        "step": step,
        "steps_in_a_row": int(state.faults.in_a_row),
        "steps_in_all": int(state.faults.total),
        "items": stream.item_numbers(number),
        "arrays_not_finite": _not_finite(held),
        "loss": _number(loss),
        "gradient_norms": {name: _number(norm) for name, norm in norms.items()},
    }
    path = workdir / NAME
    if first():
        path.write_bytes(dump(found))
    return path


def _norms(trainer: "Trainer", state: "TrainState", batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss, _, _, gradients = trainer.gradients(state, batch)
    return loss, module_norms(gradients)


def module_norms(gradients: Any) -> dict[str, jax.Array]:
    """The norm of the gradients of each part of a model, by the first two names of its parameters' paths."""
    parts: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = ".".join(jax.tree_util.keystr((entry,), simple=True) for entry in path[:2])
        parts.setdefault(name, []).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in parts.items()}


def _not_finite(batch: Any) -> dict[str, int]:
    """Numbers that are not finite in a batch's arrays, by name; of those that have any."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        values = np.asarray(leaf)
        bad = int((~np.isfinite(values)).sum()) if np.issubdtype(values.dtype, np.floating) else 0
        if bad:
            found[jax.tree_util.keystr(path, simple=True, separator=".")] = bad
    return found


def _number(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)
