import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import (
    Block,
    Classes,
    Compute,
    ConfigError,
    ConvStem,
    Encoder,
    Fourier,
    Image,
    InputError,
    PerceiverConfig,
    Pooled,
    Weights,
    from_pretrained,
)
from perceiver.inference import ask
from perceiver.objectives import accuracy, cross_entropy
from perceiver.pipeline import iterate, training_stream
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.experiment import Experiment
from perceiver.training.loop import fit
from perceiver.training.optimizers import adamw, lamb, warmup_cosine
from perceiver.training.trainer import Trainer

STEPS = 4


def tiny_experiment(
    *, channels=16, compute=Compute.FLOAT32, optimizer=None, ema=0.9, broken=None, encoder=None, **changes
):
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, 4, 4, 1), np.float32), rng.integers(0, 3, 40).astype(np.int32)
    if broken is not None:
        images[broken] = np.nan
    config = PerceiverConfig(
        inputs={"image": Image((4, 4, 1), position=Fourier(2))},
        encoder=Encoder(4, channels, 2, latent=Block(heads=2, dropout=0.2), **(encoder or {})),
        outputs={"label": Pooled(Classes(3))},  # no cross-attend: most of a step's compilation is its parameters
        compute=compute,
    )

    def sample(index, rng):
        noise = rng.normal(size=images[index].shape).astype(np.float32)
        return {"inputs": {"image": images[index] + 0.1 * noise}, "targets": {"label": labels[index]}}

    def objective(model, batch, key):
        logits = model(batch["inputs"], key=key)["label"]
        labels = batch["targets"]["label"]
        return cross_entropy(logits, labels), {"accuracy": accuracy(logits, labels)}

    def validate(model):
        return {"accuracy": float((ask(model, {"image": np.nan_to_num(images)})["label"].argmax(-1) == labels).mean())}

    given = {
        "name": "tiny",
        "model": config,
        "batches": training_stream(range(40), sample, seed=0, batch=8),
        "objective": objective,
        "optimizer": optimizer or adamw(warmup_cosine(1e-2, STEPS, 1), accumulate=2),
        "steps": STEPS,
        "batch": 8,
        "validate": validate,
        "best": "accuracy",
        "test": validate,
        "ema": ema,
        "validate_every": 2,
        "checkpoint_every": 2,
        "diagnosed": 0,
    }
    return Experiment(**(given | changes))


def convolved_experiment(**changes):
    """The same with convolutions and batch norm in front."""
    config = tiny_experiment().model
    image = Image((4, 4, 1), stem=ConvStem(3), position=Fourier(2))
    return tiny_experiment(model=dataclasses.replace(config, inputs={"image": image}), **changes)


def final_state(experiment, workdir):
    trainer = Trainer(experiment)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(trainer.start())[0]


def log_without_rates(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    measured = (
        "examples_per_second",
        "seconds_per_step",
        "flops_per_second",
        "share_of_peak",
        "compil",
        "memory_bytes",
    )
    return [{k: v for k, v in line.items() if not k.startswith(measured)} for line in lines]


def equal(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def lambs():
    return tiny_experiment(optimizer=lamb(1e-3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of tiny_experiment(), how it ended and its last state; to be copied before it is changed."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, fit(tiny_experiment(), workdir, log_every=1), final_state(tiny_experiment(), workdir)


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of that run."""
    return shutil.copytree(whole[0], tmp_path / "finished")


@pytest.mark.parametrize(
    "make",
    [tiny_experiment, pytest.param(lambs, marks=pytest.mark.slow)],
    ids=["adamw accumulated", "lamb"],
)
def test_train_2_and_resume_2_equals_train_4_bit_for_bit(tmp_path, make, whole):
    if make is lambs:
        workdir = tmp_path / "whole"
        whole = workdir, fit(make(), workdir, log_every=1), final_state(make(), workdir)
    workdir, outcome, state = whole
    first = fit(make(), tmp_path / "parts", stop_at=2, log_every=1)
    second = fit(make(), tmp_path / "parts", log_every=1)
    assert (first.step, first.finished, second.step, second.finished) == (2, False, 4, True)
    assert equal(state, final_state(make(), tmp_path / "parts"))
    assert (outcome.best, outcome.best_step) == (second.best, second.best_step)
    assert log_without_rates(workdir) == log_without_rates(tmp_path / "parts")
    models = [from_pretrained(name) for name in (workdir, tmp_path / "parts")]
    probe = {"image": np.ones((1, 4, 4, 1), np.float32)}
    assert np.array_equal(*[ask(model, probe)["label"] for model in models])


@pytest.mark.slow
def test_a_crash_between_checkpoints_loses_only_the_steps_since(tmp_path, whole):
    crashing = tiny_experiment()
    calls = []

    def breaks(model):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("power cut")
        return tiny_experiment().validate(model)

    with pytest.raises(RuntimeError, match="power cut"):
        fit(dataclasses.replace(crashing, validate=breaks), tmp_path / "parts", log_every=1)
    with Checkpoints(tmp_path / "parts" / "checkpoints") as checkpoints:
        assert checkpoints.newest == 2
    fit(tiny_experiment(), tmp_path / "parts", log_every=1)
    workdir, _, state = whole
    assert equal(state, final_state(tiny_experiment(), tmp_path / "parts"))
    assert log_without_rates(workdir) == log_without_rates(tmp_path / "parts")


def test_the_same_run_twice_is_equal_bit_for_bit(tmp_path, whole):
    fit(tiny_experiment(), tmp_path, log_every=1)
    assert equal(whole[2], final_state(tiny_experiment(), tmp_path))
    assert log_without_rates(whole[0]) == log_without_rates(tmp_path)


@pytest.mark.slow
def test_another_seed_trains_other_parameters(tmp_path, whole):
    fit(tiny_experiment(seed=1), tmp_path)
    assert not equal(whole[2].parameters, final_state(tiny_experiment(), tmp_path).parameters)


def test_a_run_compiles_its_step_once(whole):
    assert (whole[1].compilations, whole[1].step) == (1, STEPS)


def test_runs_with_other_seeds_share_their_program():
    texts = set()
    for seed in (0, 1):
        trainer = Trainer(tiny_experiment(seed=seed))
        batch = trainer.experiment.batches[0]
        texts.add(trainer.program(trainer.start(), batch).call.as_text())
    assert len(texts) == 1


def test_a_run_that_goes_on_takes_the_program_of_the_one_that_stopped(tmp_path):
    """A restored state is bound to a device, a fresh one is not: compiled for them as they are, they would differ."""
    fit(tiny_experiment(), tmp_path, stop_at=2)
    trainer = Trainer(tiny_experiment())
    fresh, batch = trainer.start(), trainer.experiment.batches[0]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        restored, _, _ = checkpoints.restore(fresh)
    texts = {Trainer(tiny_experiment()).program(state, batch).call.as_text() for state in (fresh, restored)}
    assert len(texts) == 1


@pytest.mark.slow
def test_a_step_that_draws_its_latents_and_depth_compiles_once_too(tmp_path):
    outcome = fit(tiny_experiment(steps=6, encoder={"min_latents": 1, "min_depth": 1}), tmp_path)
    assert (outcome.compilations, outcome.step) == (1, 6)


def test_training_refuses_weights_that_are_not_float32():
    experiment = tiny_experiment()
    with pytest.raises(ConfigError, match="training takes float32 weights, got int8"):
        dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, weights=Weights.INT8))


@pytest.mark.slow
def test_bfloat16_trains_float32_parameters_and_computes_in_bfloat16(tmp_path):
    experiment = tiny_experiment(compute=Compute.BFLOAT16)
    fit(experiment, tmp_path)
    trainer, batch = Trainer(experiment), next(iterate(experiment.batches))
    state = final_state(experiment, tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.parameters)} == {jnp.dtype(jnp.float32)}
    assert "bf16" in str(jax.make_jaxpr(trainer.gradients)(state, batch))
    assert all(np.isfinite(line["loss"]) for line in log_without_rates(tmp_path) if line["group"] == "train")


def test_a_finished_run_is_left_alone(finished):
    before = log_without_rates(finished)
    outcome = fit(tiny_experiment(), finished)
    assert (outcome.step, outcome.finished, outcome.compilations) == (4, True, 0)
    assert log_without_rates(finished) == before


def test_the_best_validated_model_is_the_one_kept(tmp_path):
    scores = iter([0.5, 0.9, 0.1])
    kept = []

    def validate(model):
        kept.append(np.asarray(model.encoder.latents[...]))
        return {"accuracy": next(scores)}

    outcome = fit(tiny_experiment(steps=6, validate=validate), tmp_path)
    assert (outcome.best, outcome.best_step) == (0.9, 4)
    assert np.array_equal(from_pretrained(tmp_path).encoder.latents[...], kept[1])


def test_the_average_is_evaluated_and_differs_from_the_parameters(whole):
    experiment, state = tiny_experiment(), whole[2]
    assert not equal(state.ema, state.parameters)
    probe = {"image": np.ones((1, 4, 4, 1), np.float32)}
    kept = Trainer(experiment).model(state)
    averaged = jax.tree.leaves(state.ema)
    assert any(np.array_equal(kept.encoder.latents[...], leaf) for leaf in averaged)
    assert np.isfinite(ask(kept, probe)["label"]).all()


def test_checkpoints_of_another_model_are_refused_with_what_differs(finished):
    with pytest.raises(
        InputError, match=r"(?s)another model.*encoder\.latents.*expected shape \(4, 8\), got \(4, 16\)"
    ):
        fit(tiny_experiment(channels=8), finished)


def test_a_missing_best_figure_is_an_error_that_lists_what_there_is(tmp_path):
    with pytest.raises(InputError, match=r"accuracy.*'miou'"):
        fit(tiny_experiment(best="miou"), tmp_path)


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch": 0}, {"ema": 1.0}])
def test_impossible_experiments_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        tiny_experiment(**change)


@pytest.mark.slow
def test_statistics_of_batch_norm_are_trained_resumed_and_kept(tmp_path):
    experiment = convolved_experiment()
    start = jax.tree.leaves(Trainer(experiment).start().statistics)
    assert fit(experiment, tmp_path / "whole").finished
    fit(experiment, tmp_path / "parts", stop_at=2)
    fit(experiment, tmp_path / "parts")
    states = [final_state(experiment, tmp_path / name) for name in ("whole", "parts")]
    for a, b in zip(*(jax.tree.leaves(state.statistics) for state in states), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(start, jax.tree.leaves(states[0].statistics), strict=True))
    models = [from_pretrained(tmp_path / name) for name in ("whole", "parts")]
    for model in models:
        norm = model.adapters["image"].stem.norms[0]
        assert 0 < int(norm.mean.count[...]) <= STEPS
        assert int(norm.mean.count[...]) == int(models[0].adapters["image"].stem.norms[0].mean.count[...])


def test_what_was_learned_before_is_carried_over_where_name_and_shape_agree(tmp_path):
    first = tiny_experiment()
    other = dataclasses.replace(first.model, outputs={"kind": Pooled(Classes(5))})
    second = dataclasses.replace(first, pretraining=first, seed=7)
    fresh = dataclasses.replace(second, pretraining=None)

    kept = from_pretrained(_trained(first, tmp_path / "alone"))
    started = Trainer(second, kept).start().parameters
    same = jax.tree.map(np.array_equal, started, nnx.as_pure(nnx.state(kept, nnx.Param)))
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(
        started["encoder"]["latents"][...], Trainer(fresh).start().parameters["encoder"]["latents"][...]
    )

    # another question: its decoder starts afresh
    asked = Trainer(dataclasses.replace(fresh, model=other), kept).start().parameters
    assert np.array_equal(asked["encoder"]["latents"][...], started["encoder"]["latents"][...])
    assert "label" not in asked["decoders"]


@pytest.mark.slow
def test_pretraining_goes_first_and_once(tmp_path):
    first = tiny_experiment()
    second = dataclasses.replace(first, pretraining=dataclasses.replace(first, name="before"), seed=7)
    fit(second, tmp_path, stop_at=2)
    written = (tmp_path / "pretraining" / "model" / "MANIFEST.json").stat().st_mtime_ns
    outcome = fit(second, tmp_path)
    assert outcome.finished
    assert (tmp_path / "pretraining" / "model" / "MANIFEST.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_some_steps_can_be_traced(tmp_path):
    fit(tiny_experiment(steps=8), tmp_path, profile=2)
    (trace,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    assert trace.stat().st_size > 1000


def _trained(experiment, workdir):
    fit(experiment, workdir)
    return workdir / "model"
