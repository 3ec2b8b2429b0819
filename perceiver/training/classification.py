"""What recipes that give each sample one class have in common: the objective, and how answers are judged."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.inference import ask_all
from perceiver.model import Perceiver
from perceiver.objectives import accuracy, cross_entropy
from perceiver.pipeline import Batch, Sample
from perceiver.training.evaluation import Judged, classified
from perceiver.training.experiment import Objective

BATCH = 128
"""Samples of one compiled call when answers are judged."""


def class_objective(smoothing: float = 0.1, output: str = "label") -> Objective:
    """Cross-entropy of one output with batch["targets"][output], int [b]; metrics: the training accuracy.

    smoothing: probability spread over all classes.
    """

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = model(batch["inputs"], batch.get("masks"), [output], key=key)[output]
        label = jnp.asarray(batch["targets"][output])
        return cross_entropy(logits, label, smoothing=smoothing), {"accuracy": accuracy(logits, label)}

    return objective


def probabilities(model: Perceiver, samples: Sequence[Sample], output: str = "label") -> np.ndarray:
    """[n, classes], what a model gives the classes of each sample."""
    return np.asarray(jax.nn.softmax(ask_all(model, samples, BATCH, [output])[output], axis=-1))


def class_judge(
    sample: Callable[[Any], Sample],
    name: Callable[[Any], str],
    label: Callable[[Any], int],
    output: str = "label",
) -> Callable[[Perceiver, Sequence[Any]], Judged]:
    """A Task's judge: one class for each item.

    sample: an item to the model's inputs and masks. name, label: of an item. output: whose classes have names.
    """

    def judge(model: Perceiver, items: Sequence[Any]) -> Judged:
        found = probabilities(model, [sample(item) for item in items], output).argmax(axis=1)
        names = model.config.outputs[output].head.names
        labels = np.array([label(item) for item in items])
        return classified([name(item) for item in items], labels, found, names)

    return judge
