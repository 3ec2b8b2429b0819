"""What recipes that bring modalities into one space have in common: the objective, and how a search is judged."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver.contrast import Embedded, infonce, together
from perceiver.inference import ask_all
from perceiver.model import Perceiver
from perceiver.pipeline import Batch, Sample
from perceiver.retrieval import both_ways, shuffled
from perceiver.training.evaluation import Judged, figures_of
from perceiver.training.experiment import Objective
from perceiver.typing import Array, Bool, Float

BATCH = 64
"""Samples of one compiled call when searches are judged."""


def matching_objective(
    pairs: Sequence[tuple[str, str]] | None = None, kinds: float = 0.0, output: str = "embedding"
) -> Objective:
    """InfoNCE between modalities, each of them embedded by itself.

    What is at the same place of a batch belongs together, or, where batch["targets"] has int [b] for a modality, what
    is of the same number. A sample whose mask for a modality is False altogether lacks it and counts nowhere in it.

    pairs: of modalities; None takes all of the batch. kinds: weight of a second InfoNCE, in which all belong together
    that are of the same number in batch["targets"]["kind"], so that what is new is near what is like it. Metrics: the
    learned scale of the similarities.
    """

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
        groups, masks = batch.get("targets", {}), batch.get("masks", {})
        keys = [None] * len(batch["inputs"]) if key is None else jax.random.split(key, len(batch["inputs"]))
        said = {}
        for own, name in zip(keys, sorted(batch["inputs"]), strict=True):
            mask = {name: masks[name]} if name in masks else None
            values = model({name: batch["inputs"][name]}, mask, [output], key=own)[output]
            said[name] = Embedded(values, groups.get(name), _present(masks.get(name)))
        head: Any = model.decoders[output].head
        log_scale = head.log_scale[...]
        loss = together(lambda left, right: infonce(left, right, log_scale), said, pairs)
        if kinds:
            alike = {name: dataclasses.replace(side, group=groups["kind"]) for name, side in said.items()}
            loss += kinds * together(lambda left, right: infonce(left, right, log_scale), alike, pairs)
        return loss, {"scale": jnp.exp(log_scale)}

    return objective


def _present(mask: Array | None) -> Bool[Array, "b"] | None:
    return None if mask is None else mask.reshape(len(mask), -1).any(axis=1)


def embedded(model: Perceiver, samples: Sequence[Sample], output: str = "embedding") -> Float[np.ndarray, "n c"]:
    """The vector of each sample."""
    return ask_all(model, samples, BATCH, [output])[output].reshape(len(samples), -1)


def matching_judge(
    left: str,
    right: str,
    view: Callable[[Any, str], Sample],
    name: Callable[[Any, str], str],
    dealt: bool = False,
) -> Callable[[Perceiver, Sequence[Any]], Mapping[str, Judged]]:
    """A Task's judge: for each item's one modality its other one is searched among those of all items, both ways.

    left, right: the modalities. view: an item and a modality to the model's inputs and masks. name: likewise, to what
    the answer is called; what has the same name, such as two equal texts, is equally right.
    dealt: the right pairs are dealt anew, a control that shows what a search finds by chance.
    """

    def judge(model: Perceiver, items: Sequence[Any]) -> Mapping[str, Judged]:
        held = list(items)
        sides = {
            side: ([name(item, side) for item in held], embedded(model, [view(item, side) for item in held]))
            for side in (left, right)
        }
        positive = same(sides[left][0]) | same(sides[right][0])
        ways = both_ways(sides[left], sides[right], shuffled(positive) if dealt else positive)
        return {f"{left}_to_{right}": ways[0], f"{right}_to_{left}": ways[1]}

    return judge


def same(names: Sequence[str]) -> Bool[np.ndarray, "n n"]:
    """Which of the names are equal."""
    column = np.array(names)
    return column[:, None] == column


def mean_figures(judged: Mapping[str, Judged]) -> dict[str, float]:
    """The mean of each figure over the ways of a search."""
    ways = [figures_of(way) for way in judged.values()]
    return {name: float(np.mean([way[name] for way in ways])) for name in ways[0]}
