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
    """Cross-entropy of one output with batch["targets"][output]; metrics: the training accuracy.

    The target is a class, int [b], or the share of each class, float [b, classes], as of two samples that are mixed;
    the accuracy is then that of the class with the largest share. smoothing: probability spread over all classes.
    """

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = model(batch["inputs"], batch.get("masks"), [output], key=key)[output]
        target = jnp.asarray(batch["targets"][output])
        label = target if target.ndim == 1 else target.argmax(axis=-1)
        return cross_entropy(logits, target, smoothing=smoothing), {"accuracy": accuracy(logits, label)}

    return objective


def probabilities(model: Perceiver, samples: Sequence[Sample], output: str = "label") -> np.ndarray:
    """[n, classes], what a model gives the classes of each sample."""
    return np.asarray(jax.nn.softmax(ask_all(model, samples, BATCH, [output])[output], axis=-1))


def class_judge(
    *views: Callable[[Any], Sample],
    name: Callable[[Any], str],
    label: Callable[[Any], int],
    output: str = "label",
) -> Callable[[Perceiver, Sequence[Any]], Judged]:
    """A Task's judge: one class for each item, that of the highest mean log-probability over its views.

    views: an item to the model's inputs and masks; of several, such as a picture and its mirror image, all are asked
        about.
    name, label: of an item. output: whose classes have names.
    """

    def judge(model: Perceiver, items: Sequence[Any]) -> Judged:
        held = list(items)  # read once, whatever the views
        seen = [probabilities(model, [view(item) for item in held], output) for view in views]
        found = np.mean([np.log(np.maximum(each, 1e-9)) for each in seen], axis=0).argmax(axis=1)
        names = model.config.outputs[output].head.names
        labels = np.array([label(item) for item in held])
        return classified([name(item) for item in held], labels, found, names)

    return judge
