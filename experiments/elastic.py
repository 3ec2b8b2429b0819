"""The digits recipe with latents and depth as a choice at inference: one checkpoint, many sizes.

    perceiver train experiments/elastic.py
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data import digits as dataset
from experiments import digits as recipe
from perceiver import Perceiver, reduced
from perceiver.training.experiment import Experiment

LATENTS, DEPTHS = (2, 4, 8, 16), (1, 2, 4)
"""The sizes that are reported."""


def sizes(model: Perceiver) -> dict[str, Perceiver]:
    """Every reported size of a model that was trained for all of them, by name."""
    return {f"{n} latents, depth {d}": reduced(model, n, d) for n in LATENTS for d in DEPTHS}


def validate(model: Perceiver, split: dataset.Split) -> dict[str, float]:
    """The recipe's figures at the smallest size, a middle one and the whole; their mean score chooses the model."""
    found = {
        "smallest": recipe.evaluate(reduced(model, LATENTS[0], DEPTHS[0]), split),
        "middle": recipe.evaluate(reduced(model, LATENTS[2], DEPTHS[1]), split),
        "whole": recipe.evaluate(model, split),
    }
    figures = {f"accuracy_{name}": scores["accuracy"] for name, scores in found.items()}
    return {"score": float(np.mean([scores["score"] for scores in found.values()])), **figures}


def accuracies(model: Perceiver, split: dataset.Split, shuffle: bool = False) -> Mapping[str, Any]:
    """Accuracy of the class by size."""
    return {name: recipe.evaluate(part, split, shuffle)["accuracy"] for name, part in sizes(model).items()}


def elastic(*, steps: int = 800, batch: int = 128, seed: int = 0, split: int = 0) -> Experiment:
    """Handwritten digits with 2 to 16 latents and 1 to 4 layers drawn at every step, and two fixed sizes beside.

    Args:
        steps: Updates, of each of the three models.
        batch: Scans, and names, per update.
        seed: Of the parameters, the order of the data and the augmentation.
        split: Which 25 % of the scans are held out for the test.
    """
    splits = dataset.load(split)
    given: dict[str, Any] = {"steps": steps, "batch": batch, "seed": seed, "split": split}
    whole = recipe.digits(**given, latents=LATENTS[-1], depth=DEPTHS[-1])
    smallest = recipe.digits(**given, latents=LATENTS[0], depth=DEPTHS[0])
    encoder = dataclasses.replace(whole.model.encoder, min_latents=LATENTS[0], min_depth=DEPTHS[0])
    return dataclasses.replace(
        whole,
        name="elastic",
        model=dataclasses.replace(whole.model, encoder=encoder),
        validate=lambda m: validate(m, splits["validation"]),
        test=lambda m: {"accuracy": accuracies(m, splits["test"])},
        controls=lambda m: {"shuffled_labels": {"accuracy": accuracies(m, splits["test"], shuffle=True)}},
        companions={"whole": whole, "smallest": smallest},
    )
