"""A steering command from a ring of 24 ultrasound sensors, on the last fifth of a drive.

perceiver train experiments/wall_following.py --root FOLDER      (FOLDER holds wall_following_robot/)

Each echo is a point: how far and in which direction it is, and how long ago it came.

Seeds 0, 1, 2: test accuracy 98.5 ± 0.4 % (98.7, 98.1, 98.6; 873 readings), each 150 s on one core of two. On the same
split a random forest 98.7 %, logistic regression 70.0 %, the untrained model 11 to 39 %. The same model with positions
in metres to the sides instead of range and direction: 97.2 ± 0.6 %; on the 24 ranges as one vector: 85.6 %.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data import wall_following_robot as dataset
from perceiver import Block, Classes, Encoder, Fourier, PerceiverConfig, Points
from perceiver.adapters.base import pad_to
from perceiver.pipeline import Sample, training_stream
from perceiver.training.classification import class_judge, class_objective
from perceiver.training.evaluation import Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine

NEAR, FAR = 0.1, 5.0
"""Metres that an ultrasound sensor sees."""
HISTORY = 4
"""Readings that the model sees, the newest last: not quite half a second."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """The readings up to a moment, float32 [t, 24] in metres with t up to HISTORY, and the command given then."""

    name: str
    ranges: np.ndarray
    command: int


def moments(readings: Sequence[dataset.Reading]) -> list[Moment]:
    """Every reading with those before it."""
    ranges = np.stack([reading.ranges for reading in readings]) if len(readings) else np.zeros((0, 24))
    return [
        Moment(f"reading {i}", ranges[max(i + 1 - HISTORY, 0) : i + 1], reading.command)
        for i, reading in enumerate(readings)
    ]


@functools.cache
def load(root: Path | None) -> Mapping[str, list[Moment]]:
    """The splits in time, as moments."""
    return {name: moments(readings) for name, readings in dataset.load(root).items()}


def given(ranges: np.ndarray) -> Sample:
    """Readings to the model's inputs: the logarithm of each echo's range, its direction, and how many readings ago."""
    far = np.log(np.clip(ranges, NEAR, FAR))
    angles = np.pi - np.deg2rad(15.0) * np.arange(24)  # the sensors stand 15 degrees apart
    ages = np.arange(len(ranges))[::-1, None]
    columns = np.broadcast_arrays(far, angles, -ages / HISTORY, far, ages)
    echoes = np.stack(columns, axis=-1).reshape(-1, 5).astype(np.float32)
    return {
        "inputs": {"echoes": pad_to(echoes, 24 * HISTORY)},
        "masks": {"echoes": np.arange(24 * HISTORY) < len(echoes)},
    }


def sample(item: Moment, rng: np.random.Generator) -> Sample:
    """A moment whose ranges are a little off, and whose past is sometimes forgotten."""
    ranges = item.ranges + rng.normal(0.0, 0.01, item.ranges.shape).astype(np.float32)
    if rng.random() < 0.2:
        ranges = ranges[-1:]
    return given(ranges.astype(np.float32)) | {"targets": {"label": np.int32(item.command)}}


TASKS = {
    "wall_following_robot": Task(
        load,
        class_judge(lambda m: given(m.ranges), name=lambda m: m.name, label=lambda m: m.command),
    )
}


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """Each echo of each reading is a point in range, direction and time."""
    return PerceiverConfig(
        inputs={
            "echoes": Points(
                24 * HISTORY,
                low=(math.log(NEAR), -np.pi, -1.0),
                high=(math.log(FAR), np.pi, 1.0),
                features=("log range", "age"),
                position=Fourier(bands=16, max_resolution=(100.0, 24.0, 4.0)),
                mean=(0.4, 1.0),
                std=(0.6, 1.0),
            )
        },
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels, v_channels=channels, widening=2),
            latent=Block(heads=4, widening=2, dropout=0.1),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={"label": Classes(len(dataset.CLASSES), names=dataset.CLASSES)},
    )


def baselines(splits: Mapping[str, Sequence[Moment]]) -> dict[str, float]:
    """Logistic regression and a random forest on the newest reading, trained on all that comes before the test."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = [*splits["train"], *splits["validation"]]
    x, y = np.stack([row.ranges[-1] for row in rows]), [row.command for row in rows]
    test, truth = np.stack([row.ranges[-1] for row in splits["test"]]), [row.command for row in splits["test"]]
    methods = {
        "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "random_forest": RandomForestClassifier(200, random_state=0),
    }
    return {name: float(method.fit(x, y).score(test, truth)) for name, method in methods.items()}


def wall_following(
    *,
    root: Path | None = None,
    steps: int = 600,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 2e-3,
    latents: int = 12,
    channels: int = 64,
    depth: int = 1,
    checkpoint_every: int = 500,
) -> Experiment:
    """A steering command from a ring of 24 ultrasound sensors.

    Args:
        root: Folder that holds wall_following_robot/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Moments per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each of the two looks at the echoes.
        checkpoint_every: Updates between checkpoints.
    """
    splits = load(root)
    judge = TASKS["wall_following_robot"].judge
    return Experiment(
        name="wall_following",
        model=model(latents, channels, depth),
        batches=training_stream(splits["train"], sample, seed=seed, batch=batch),
        objective=class_objective(0.05),
        optimizer=adamw(warmup_cosine(learning_rate, steps), weight_decay=0.05),
        steps=steps,
        batch=batch,
        seed=seed,
        validate=lambda m: figures_of(judge(m, splits["validation"])),
        best="accuracy",
        test=lambda m: scores(judge(m, splits["test"])),
        baselines=lambda: baselines(splits),
        ema=0.995,
        validate_every=max(steps // 6, 1),
        checkpoint_every=checkpoint_every,
    )
