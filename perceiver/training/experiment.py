"""What an experiment is: a function of keyword arguments that returns this, made of real objects."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import optax

from perceiver.errors import ConfigError
from perceiver.model import ModelConfig
from perceiver.pipeline import Batch, Skipped, Stream
from perceiver.quantised import Weights

Objective = Callable[[Any, Batch, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]
"""(model, batch, key) -> (loss, metrics), pure; the key is the step's randomness."""

Scores = Mapping[str, Any]
"""Figures by name; nested mappings group them."""

Evaluation = Callable[[Any], Scores]
"""A model's figures on a fixed split."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training run, declared.

    model, batches, objective, optimizer: what is trained, on which endless stream, for what, how. The functions are
        given the built model: a Perceiver, or what else the declaration builds. A function in place of the stream is
        called when training begins, with the pretraining's best model, or None: where samples take long to make, or
        that model is to gather them.
    steps: updates. seed: of the parameters and of dropout (the stream carries its own). batch: samples per step.
    validate: figures on a validation split cut from the training data; the best model by `best` (higher is better) is
        the one that is kept. test: figures on the test split, computed once, at the end.
    baselines: figures of simple methods on the same test split.
    controls: further figures that a real result must beat, given the trained model, such as shuffled inputs.
        The untrained model's test figures are always among them.
    pictures: draws into a folder, given the trained model.
    ema: decay of the moving average of the parameters that is evaluated and kept; None takes the parameters.
    validate_every, checkpoint_every: in steps.
    skipped: where the stream notes the bad samples that it leaves out, for the report; the same that `training_stream`
        was given.
    companions: smaller or other experiments trained in the same run and reported beside, by name.
    summary: figures of all companions together, from their test figures by name.
    pretraining: an experiment that is trained first; parameters of the same name and shape start from its best model.
    diagnosed: samples of a training batch whose latents each validation looks into, see `perceiver.diagnostics`; the
        batch has "inputs", and "masks" where there are any. 0 leaves it out.
    most_nonfinite: steps in a row whose loss or gradients are not finite before the run ends; each is left out.
    spike: deviations above its usual height (see `training.spikes`) at which a reported loss sends the run back to its
        newest checkpoint, to go on behind the data that it had reached; None never does. most_rollbacks: how often.
    """

    name: str
    model: ModelConfig
    batches: Stream | Callable[[Any], Stream]
    objective: Objective
    optimizer: optax.GradientTransformation
    steps: int
    batch: int
    validate: Evaluation
    best: str
    test: Evaluation
    seed: int = 0
    baselines: Callable[[], Scores] = dict
    controls: Callable[[Any], Scores] = lambda _: {}
    pictures: Callable[[Any, Path], None] = lambda _, __: None
    ema: float | None = None
    validate_every: int = 200
    checkpoint_every: int = 200
    skipped: Skipped | None = None
    companions: Mapping[str, "Experiment"] = dataclasses.field(default_factory=dict)
    summary: Callable[[Mapping[str, Scores]], Scores] = lambda _: {}
    pretraining: "Experiment | None" = None
    diagnosed: int = 8
    most_nonfinite: int = 10
    spike: float | None = None
    most_rollbacks: int = 3
    brief: "Callable[[], Experiment] | None" = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "checkpoint_every", "most_nonfinite"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Experiment.{name} must be at least 1, got {getattr(self, name)}")
        if self.model.weights is not Weights.FLOAT32:
            raise ConfigError(
                f"Experiment.model: training takes float32 weights, got {self.model.weights.value}; quantise afterwards"
            )
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise ConfigError(f"Experiment.ema must be between 0 and 1, got {self.ema}")
        if self.spike is not None and not self.spike > 0.0:
            raise ConfigError(f"Experiment.spike must be above 0, got {self.spike}")

    @property
    def stream(self) -> Stream:
        """The batches.

        Raises:
            ConfigError: they are still to be made, by `begun`.
        """
        if not isinstance(self.batches, Stream):
            raise ConfigError(f"Experiment.batches of {self.name!r} are still to be made: begun() makes them")
        return self.batches

    def begun(self, pretrained: Any) -> "Experiment":
        """The same with its batches made. pretrained: the pretraining's best model; None without one."""
        return self if isinstance(self.batches, Stream) else dataclasses.replace(self, batches=self.batches(pretrained))
