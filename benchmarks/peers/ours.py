"""Ours, as a user calls it: state split off once, one `jax.jit` with the parameters as arguments, numpy inputs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import inputs, models, probes
from benchmarks.cases import Canonical, Case, Contrastive, Training
from benchmarks.peers.contract import Built, Variant
from perceiver.contrast import Embedded, infonce
from perceiver.model import ModelConfig
from perceiver.objectives import cross_entropy
from perceiver.training.experiment import Experiment, Objective
from perceiver.training.optimizers import adamw
from perceiver.training.trainer import Trainer


def load(threads: int) -> dict[str, str]:
    """XLA takes its threads from the process's affinity, which the worker has set.

    Compiles something small, so that what XLA and LLVM set up once is there.
    """
    import flax

    import perceiver

    del threads
    jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((64, 64))))
    return {"jax": jax.__version__, "flax": flax.__version__, "perceiver": perceiver.__version__}


def probe() -> dict[str, float]:
    """What JAX reaches on this machine; see `probes`."""
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        multiply = jax.jit(lambda a, b: a @ b)

        def matmul(a: Any, b: Any, multiply=multiply) -> None:
            jax.block_until_ready(multiply(a, b))

        found[jnp.dtype(dtype).name] = probes.matmul(matmul, lambda x, dtype=dtype: jnp.asarray(x, dtype))
    triad = jax.jit(lambda a, b: a + 3.0 * b)
    found["bandwidth"] = probes.triad(lambda a, b: jax.block_until_ready(triad(a, b)), jnp.asarray)
    return found


def build(case: Case, variant: Variant) -> Built:
    """See `contract`."""
    config = models.config(case)
    if isinstance(case, Training | Contrastive):
        return _training(models.with_remat(config) if variant is Variant.REMAT else config, case)
    return _forward(config, models.call(case))


def _forward(config: ModelConfig, given: models.Call) -> Built:
    model = config.build()
    graph, state = nnx.split(model)
    parameters = _count(nnx.state(model, nnx.Param))
    del model

    @jax.jit
    def answer(state: nnx.State, inputs: Any, masks: Any, queries: Any) -> dict[str, jax.Array]:
        return nnx.merge(graph, state)(inputs, masks, queries=queries)

    def run() -> dict[str, jax.Array]:
        return jax.block_until_ready(answer(state, given.inputs, given.masks, given.queries))

    return Built(run, _shapes, parameters)


def _training(config: ModelConfig, case: Training | Contrastive) -> Built:
    given = models.call(case)
    batch = {"inputs": given.inputs, "masks": given.masks, "targets": given.targets}
    trainer = Trainer(experiment(config, _objective(case), case.batch))
    state = trainer.start()
    parameters = _count(state.parameters)

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        jax.block_until_ready((state, metrics))
        return {"loss": metrics["loss"]}

    return Built(step, _shapes, parameters)


def experiment(config: Any, objective: Objective, batch: int) -> Experiment:
    """What the training step takes of an experiment; there is no stream of batches, no validation and no test."""
    from perceiver.pipeline import training_stream

    return Experiment(
        name="benchmark",
        model=config,
        batches=training_stream(range(1), lambda item, rng: {}, seed=0, batch=batch),
        objective=objective,
        optimizer=adamw(1e-4, weight_decay=0.01, b2=0.999),
        steps=1,
        batch=batch,
        validate=lambda _: {},
        best="loss",
        test=lambda _: {},
    )


def _objective(case: Training | Contrastive) -> Objective:
    if isinstance(case, Contrastive):
        return _pairs
    return _masked_bytes if case.model is Canonical.LANGUAGE else _classes


def _classes(model: Any, batch: Mapping[str, Any], key: jax.Array | None):
    answers = model(batch["inputs"], batch["masks"], key=key)
    return cross_entropy(answers["label"], batch["targets"]["label"]), {}


def _masked_bytes(model: Any, batch: Mapping[str, Any], key: jax.Array | None):
    answers = model(batch["inputs"], batch["masks"], key=key)
    labels = batch["targets"]["text"]
    return cross_entropy(answers["text"], labels, labels != inputs.IGNORED), {}


def _pairs(model: Any, batch: Mapping[str, Any], key: jax.Array | None):
    given = batch["inputs"]
    image, text = model.embed_image(given["pixels"], key=key), model.embed_text(given["ids"], key=key)
    return infonce(Embedded(image), Embedded(text), model.log_scale[...]), {}


def _count(parameters: nnx.State) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def _shapes(answers: Mapping[str, jax.Array]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in answers.items()}
