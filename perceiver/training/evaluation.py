"""A model's figures on any folder of a dataset's layout, with confidence intervals and a line for each item."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceiver.errors import InputError
from perceiver.model import Perceiver

Sums = Mapping[str, np.ndarray]
"""What was counted, added up over items; any number of leading axes, one for each set of items."""

RESAMPLES = 1000
"""Bootstrap samples of an interval."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a model made of each item.

    lines: a JSON object for each item; "item" names it.
    counts: by name, numbers [n, …] that add up over items, such as hits or confusion matrices.
    figures: from their sums [s, …] to figures [s]; pure.
    """

    lines: Sequence[Mapping[str, Any]]
    counts: Mapping[str, np.ndarray]
    figures: Callable[[Sums], Mapping[str, np.ndarray]]


Verdict = Judged | Mapping[str, Judged]
"""What was made of items: of one question about them, or of several by name, such as both ways of a search."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked about the items of a dataset, which may lie in any folder.

    load: from the root folder (None: the usual one) to items by split. judge: (model, items) -> Verdict.
    """

    load: Callable[[Path | None], Mapping[str, Sequence[Any]]]
    judge: Callable[[Perceiver, Sequence[Any]], Verdict]

    def items(self, root: Path | None, split: str) -> Sequence[Any]:
        """The items of a split, or of "all".

        Raises:
            InputError: no such split, or nothing in it.
        """
        splits = self.load(root)
        if split != "all" and split not in splits:
            raise InputError(f"split: expected one of {', '.join(splits)} or all, got {split!r}")
        chosen = splits.values() if split == "all" else [splits[split]]
        items = [part[i] for part in chosen for i in range(len(part))]
        if not items:
            sizes = ", ".join(f"{name} {len(part)}" for name, part in splits.items())
            raise InputError(f"split {split!r}: there is nothing in it ({sizes})")
        return items


def figures_of(judged: Judged) -> dict[str, float]:
    """Figures over all items; one that has no value, such as the overlap of an absent class, is left out."""
    figures = judged.figures({name: values.sum(axis=0)[None] for name, values in judged.counts.items()})
    return {name: float(value[0]) for name, value in figures.items() if np.isfinite(value[0])}


def scores(judged: Verdict) -> dict[str, Any]:
    """Figures over all items, their number, and what 95 % of bootstrap samples of the items lie between; of several
    questions, those of each.

    The percentile bootstrap (Efron 1979) resamples whole items, so that points of one scan stay together.
    """
    if isinstance(judged, Mapping):
        return {question: scores(own) for question, own in judged.items()}
    count = len(judged.lines)
    found: dict[str, Any] = figures_of(judged) | {"items": count}
    if count < 2:
        return found
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float32)
    sums = {name: np.tensordot(times, values.astype(np.float32), 1) for name, values in judged.counts.items()}
    intervals = {}
    for name, values in judged.figures(sums).items():
        if name in found:
            low, high = np.nanpercentile(values, [2.5, 97.5])
            intervals[name] = {"low": float(low), "high": float(high)}
    return found | {"interval_95": intervals}


def classified(items: Sequence[str], labels: np.ndarray, found: np.ndarray, names: Sequence[str]) -> Judged:
    """One class for each item: accuracy.

    items: their names. labels, found: int [n], true and predicted classes. names: of the classes.
    """
    right = np.asarray(labels) == np.asarray(found)
    lines = [
        {"item": item, "label": names[label], "prediction": names[guess], "correct": bool(label == guess)}
        for item, label, guess in zip(items, labels, found, strict=True)
    ]
    return Judged(lines, {"right": right, "all": np.ones(len(right))}, _accuracy)


def _accuracy(sums: Sums) -> Mapping[str, np.ndarray]:
    return {"accuracy": sums["right"] / sums["all"]}


def segmented(items: Sequence[str], confusions: np.ndarray, names: Sequence[str]) -> Judged:
    """Many labelled elements in each item, such as points or pixels: accuracy, IoU of each class and their mean.

    confusions: int [n, c, c], elements by true and predicted class. names: of the c classes. A class that is neither
    there nor predicted has no IoU and does not count in the mean.
    """
    lines = [
        {"item": item, "elements": int(own.sum()), "correct": int(np.trace(own)), "confusion": own.tolist()}
        for item, own in zip(items, confusions, strict=True)
    ]

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        confusion = sums["confusion"].astype(np.float64)
        both = np.diagonal(confusion, axis1=-2, axis2=-1)
        either = confusion.sum(axis=-1) + confusion.sum(axis=-2) - both
        overlap = np.where(either > 0, both / np.maximum(either, 1), np.nan)
        whole = {"accuracy": both.sum(axis=-1) / confusion.sum(axis=(-2, -1)), "miou": np.nanmean(overlap, axis=-1)}
        return whole | {f"iou_{name.replace(' ', '_')}": overlap[..., i] for i, name in enumerate(names)}

    return Judged(lines, {"confusion": np.asarray(confusions)}, figures)


def confusion(labels: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Elements by true and predicted class, int64 [classes, classes]; labels below 0 are left out."""
    real = labels >= 0
    return np.bincount(labels[real] * classes + found[real], minlength=classes**2).reshape(classes, classes)


def measured(items: Sequence[str], values: Mapping[str, np.ndarray]) -> Judged:
    """A number or more for each item, such as a PSNR: their means over items.

    values: by name, float [n].
    """
    lines = [
        {"item": item, **{name: float(column[i]) for name, column in values.items()}} for i, item in enumerate(items)
    ]
    counts = {name: np.asarray(column, np.float64) for name, column in values.items()}

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        return {name: sums[name] / sums["all"] for name in values}

    return Judged(lines, counts | {"all": np.ones(len(items))}, figures)


def write_lines(judged: Verdict, path: Path) -> None:
    """JSON lines, one for each item, whole or not at all; of several questions, each line says which."""
    lines: Sequence[Mapping[str, Any]]
    if isinstance(judged, Mapping):
        lines = [{"question": question, **line} for question, own in judged.items() for line in own.lines]
    else:
        lines = judged.lines
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    os.replace(aside, path)
