"""The digits recipe with latents and depth as a choice at inference: one checkpoint, many sizes.

perceiver train experiments/elastic.py
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from data import digits as dataset
from experiments import digits as recipe
from perceiver import Compute, Perceiver, Weights, from_pretrained, quantise, reduced, viz
from perceiver.inference import ask_all
from perceiver.model import parameter_bytes
from perceiver.saving import weights, with_weights
from perceiver.training.experiment import Experiment

LATENTS, DEPTHS = (2, 4, 8, 16), (1, 2, 4)
"""The sizes that are reported."""

BITS = {
    "float32": (Weights.FLOAT32, Compute.FLOAT32),
    "bfloat16 weights": (Weights.BFLOAT16, Compute.FLOAT32),
    "bfloat16 weights and computation": (Weights.BFLOAT16, Compute.BFLOAT16),
    "int8 weights": (Weights.INT8, Compute.FLOAT32),
}
BATCH, ROUNDS = 128, 25
"""Scans whose time is taken together, and how often."""


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


def elastic(
    *, steps: int = 800, batch: int = 128, seed: int = 0, split: int = 0, checkpoint_every: int = 300
) -> Experiment:
    """Handwritten digits with 2 to 16 latents and 1 to 4 layers drawn at every step, and two fixed sizes beside.

    Args:
        steps: Updates, of each of the three models.
        batch: Scans, and names, per update.
        seed: Of the parameters, the order of the data and the augmentation.
        split: Which 25 % of the scans are held out for the test.
        checkpoint_every: Updates between checkpoints.
    """
    splits = dataset.load(split)
    given: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "seed": seed,
        "split": split,
        "checkpoint_every": checkpoint_every,
    }
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


# --- what a size and a number of bits cost: python -m experiments.elastic RUN … --------------------------------------


def classes(model: Perceiver, split: dataset.Split) -> np.ndarray:
    """The class that a model gives each scan."""
    samples = [{"inputs": {"image": image}} for image in split.images]
    return ask_all(model, samples, BATCH, ["label"])["label"].argmax(axis=1)


def variants(folder: Path) -> dict[tuple[str, str, str], Perceiver]:
    """All models of a run, by what was trained, size and bits."""
    fixed = from_pretrained(folder / "whole")
    found = {("trained for this size alone", "2 latents, depth 1", "float32"): from_pretrained(folder / "smallest")}
    for name, bits in BITS.items():
        found["trained for this size alone", "16 latents, depth 4", name] = quantise(fixed, *bits)
        for size, model in sizes(from_pretrained(folder)).items():
            found["elastic", size, name] = quantise(model, *bits)
    # As if it had been trained for all sizes: what `reduced` would do to any model if it did not ask.
    encoder = dataclasses.replace(fixed.config.encoder, min_latents=LATENTS[0], min_depth=DEPTHS[0])
    pretended = with_weights(dataclasses.replace(fixed.config, encoder=encoder), weights(fixed), "fixed")
    return found | {("never trained for it", size, "float32"): model for size, model in sizes(pretended).items()}


@functools.partial(jax.jit, static_argnums=0)
def _label(graph: nnx.GraphDef, state: nnx.State, image: jax.Array) -> jax.Array:
    return nnx.merge(graph, state)({"image": image}, outputs=["label"])["label"]


def milliseconds(models: Sequence[Perceiver], images: np.ndarray) -> list[float]:
    """Median time of one compiled batch of each model; the models take turns, so that all meet the same machine."""
    calls = [functools.partial(_label, *nnx.split(model), jax.numpy.asarray(images)) for model in models]
    spent: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS + 2):
        for call, own in zip(calls, spent, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(call())
            if turn > 1:  # the first compiles
                own.append(1000 * (time.perf_counter() - started))
    return [float(np.median(own)) for own in spent]


def measure(folders: Sequence[Path]) -> None:
    """Print what every variant costs and knows, mean ± deviation over runs, and draw sizes.png into the first run."""
    test = dataset.load()["test"]
    hits, changed = {}, {}
    for folder in folders:
        answers = {key: classes(model, test) for key, model in variants(folder).items()}
        for key, found in answers.items():
            hits.setdefault(key, []).append(100 * np.mean(found == test.labels))
            changed.setdefault(key, []).append(100 * np.mean(found != answers[*key[:2], "float32"]))
    models = variants(folders[0])
    times = dict(zip(models, milliseconds(list(models.values()), test.images[:BATCH]), strict=True))
    print("| trained | size | bits | accuracy, % | answers changed, % | ms a batch | parameter bytes |")
    print("|---|---|---|---|---|---|---|")
    for key, model in models.items():
        numbers = f"{_spread(hits[key])} | {_spread(changed[key])} | {times[key]:.1f} | {parameter_bytes(model):,}"
        print(f"| {' | '.join(key)} | {numbers} |")
    draw(hits, times, folders[0] / "sizes.png")


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def draw(hits: Mapping[Any, Sequence[float]], times: Mapping[Any, float], path: Path) -> None:
    """Accuracy against time: a line for each depth of the elastic model, crosses for the fixed ones."""
    figure = viz.figure(7, 4.5)
    axes = figure.add_subplot()
    for depth in DEPTHS:
        keys = [("elastic", f"{n} latents, depth {depth}", "float32") for n in LATENTS]
        means, deviations = [np.mean(hits[k]) for k in keys], [np.std(hits[k], ddof=len(hits[k]) > 1) for k in keys]
        axes.errorbar([times[k] for k in keys], means, deviations, marker="o", capsize=2, label=f"depth {depth}")
        for count, key, mean in zip(LATENTS, keys, means, strict=True):
            axes.annotate(str(count), (times[key], mean), textcoords="offset points", xytext=(4, -11), fontsize=8)
    fixed = [key for key in hits if key[0] == "trained for this size alone" and key[2] == "float32"]
    axes.plot([times[k] for k in fixed], [np.mean(hits[k]) for k in fixed], "kx", label="trained for its size alone")
    axes.set_xlabel(f"milliseconds for {BATCH} scans")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("One checkpoint at 12 sizes (numbers: latents)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    measure([Path(word) for word in sys.argv[1:]])
