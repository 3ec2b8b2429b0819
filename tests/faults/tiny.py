"""A training run that takes milliseconds a step, for processes that are going to be killed."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from perceiver import Block, Classes, Encoder, Fourier, Image, Perceiver, PerceiverConfig, Pooled
from perceiver.errors import InputError
from perceiver.inference import ask
from perceiver.objectives import cross_entropy
from perceiver.pipeline import Batch, Sample, Skipped, training_stream
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw

ITEMS = 40


def tiny(
    *,
    steps: int = 200,
    checkpoint_every: int = 1,
    seed: int = 0,
    unreadable: int = 0,
    poisoned: int = 0,
    width: int = 16,
) -> Experiment:
    """Random pictures to random classes, with dropout and noise, so that every kind of randomness is in it.

    Args:
        steps: Updates.
        checkpoint_every: Updates between checkpoints.
        seed: Of the parameters and the data.
        unreadable: So many items cannot be read.
        poisoned: So many items hold a NaN.
        width: Channels; more make larger checkpoints.
    """
    rng = np.random.default_rng(0)
    images, labels = rng.random((ITEMS, 4, 4, 1), np.float32), rng.integers(0, 3, ITEMS).astype(np.int32)
    images[unreadable : unreadable + poisoned, 0, 0] = np.nan
    skipped = Skipped()

    def sample(index: int, rng: np.random.Generator) -> Sample:
        if index < unreadable:
            raise InputError(f"picture {index}: expected a picture, got none")
        noise = rng.normal(size=images[index].shape).astype(np.float32)
        return {"inputs": {"image": images[index] + 0.1 * noise}, "targets": {"label": labels[index]}}

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        return cross_entropy(model(batch["inputs"], key=key)["label"], batch["targets"]["label"]), {}

    def accuracy(model: Perceiver) -> dict[str, Any]:
        answers = ask(model, {"image": np.nan_to_num(images)})["label"]
        return {"accuracy": float((answers.argmax(-1) == labels).mean())}

    return Experiment(
        name="tiny",
        model=PerceiverConfig(
            inputs={"image": Image((4, 4, 1), position=Fourier(2))},
            encoder=Encoder(4, width, 1, latent=Block(heads=2, dropout=0.2)),
            outputs={"label": Pooled(Classes(3))},
        ),
        batches=training_stream(range(ITEMS), sample, seed=seed, batch=8, skipped=skipped),
        objective=objective,
        optimizer=adamw(1e-3),
        steps=steps,
        batch=8,
        seed=seed,
        diagnosed=0,
        validate=accuracy,
        best="accuracy",
        test=accuracy,
        ema=0.9,
        validate_every=max(steps // 4, 1),
        checkpoint_every=checkpoint_every,
        skipped=skipped,
    )


HERE = Path(__file__)
