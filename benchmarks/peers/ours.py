"""Ours, as a user calls it: state split off once, one `jax.jit` with the parameters as arguments, numpy inputs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from benchmarks import inputs, models
from benchmarks.cases import Canonical, Case, Forward, Training, WholeClip
from benchmarks.peers.contract import Built, Variant
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.objectives import cross_entropy
from perceiver.training.experiment import Experiment, Objective
from perceiver.training.loop import Trainer
from perceiver.training.optimizers import adamw


def load(threads: int) -> dict[str, str]:
    """XLA takes its threads from the process's affinity, which the worker has set."""
    import flax

    import perceiver

    del threads
    return {"jax": jax.__version__, "flax": flax.__version__, "perceiver": perceiver.__version__}


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    config = models.config(case)
    assert isinstance(config, PerceiverConfig)
    if isinstance(case, Training):
        return _training(models.with_remat(config) if variant is Variant.REMAT else config, case)
    return _forward(config, call_of(case))


class Call(NamedTuple):
    """Arguments of `Perceiver.__call__`."""

    inputs: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = {}
    queries: dict[str, np.ndarray] = {}


def call_of(case: Case) -> Call:
    """What a case asks."""
    if isinstance(case, WholeClip):
        return Call(inputs.clip(case.batch)._asdict())
    assert isinstance(case, Forward | Training)
    if case.model is Canonical.LANGUAGE:
        text = inputs.text(case.batch)
        return Call({"text": text.ids}, {"text": text.mask})
    if case.model is Canonical.FLOW:
        return Call({"frames": inputs.frames(case.batch)})
    if case.model is Canonical.KINETICS:
        return Call(inputs.clip(case.batch)._asdict(), queries=inputs.clip_points())
    return Call({"image": inputs.pictures(case.batch)})


def _forward(config: PerceiverConfig, given: Call) -> Built:
    model = config.build()
    graph, state = nnx.split(model)
    parameters = _count(nnx.state(model, nnx.Param))
    del model

    @jax.jit
    def answer(state: nnx.State, given: Call) -> dict[str, jax.Array]:
        return nnx.merge(graph, state)(given.inputs, given.masks, queries=given.queries)

    return Built(lambda: jax.block_until_ready(answer(state, given)), _shapes, parameters)


def _training(config: PerceiverConfig, case: Training) -> Built:
    given = call_of(case)
    if case.model is Canonical.LANGUAGE:
        objective: Objective = _masked_bytes
        targets = {"text": inputs.text(case.batch, case.masked).labels}
    else:
        objective, targets = _classes, {"label": inputs.classes(case.batch)}
    batch = {"inputs": given.inputs, "masks": given.masks, "targets": targets}
    trainer = Trainer(_experiment(config, objective, case.batch))
    state = trainer.start()
    parameters = _count(state.parameters)

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        jax.block_until_ready((state, metrics))
        return {"loss": metrics["loss"]}

    return Built(step, _shapes, parameters)


def _experiment(config: PerceiverConfig, objective: Objective, batch: int) -> Experiment:
    """What the training step takes of an experiment; there is no stream of batches, no validation and no test."""
    import grain

    return Experiment(
        name="benchmark",
        model=config,
        batches=grain.MapDataset.range(1),
        objective=objective,
        optimizer=adamw(1e-4, weight_decay=0.01, b2=0.999),
        steps=1,
        batch=batch,
        validate=lambda _: {},
        best="loss",
        test=lambda _: {},
    )


def _classes(model: Perceiver, batch: Mapping[str, Any], key: jax.Array | None):
    answers = model(batch["inputs"], batch["masks"], key=key)
    return cross_entropy(answers["label"], batch["targets"]["label"]), {}


def _masked_bytes(model: Perceiver, batch: Mapping[str, Any], key: jax.Array | None):
    answers = model(batch["inputs"], batch["masks"], key=key)
    labels = batch["targets"]["text"]
    return cross_entropy(answers["text"], labels, labels != inputs.IGNORED), {}


def _count(parameters: nnx.State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def _shapes(answers: Mapping[str, jax.Array]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in answers.items()}
