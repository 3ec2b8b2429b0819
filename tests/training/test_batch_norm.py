"""What training does with the running statistics of batch norm; see test_loop for the rest of the loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import Compute, InputError, from_pretrained
from perceiver.inference import ask
from perceiver.saving import flatten
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.loop import fit
from perceiver.training.trainer import Trainer
from tests.training.test_loop import STEPS, convolved_experiment, final_state

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(1).random((2, 4, 4, 1), np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, whose every validation sees the statistics that its model was kept with."""
    workdir, seen = tmp_path_factory.mktemp("run"), []

    def validate(model):
        seen.append((norm_of(model), ask(model, {"image": PIXELS})["label"]))
        return {"accuracy": float(len(seen))}

    experiment = convolved_experiment(validate=validate, ema=None)
    fit(experiment, workdir)
    return experiment, workdir, seen, final_state(experiment, workdir)


def norm_of(model):
    norm = model.adapters["image"].stem.norms[0]
    return {part: np.asarray(getattr(norm, part).value[...]) for part in ("mean", "variance")}


def test_the_kept_model_evaluates_with_the_statistics_of_its_step(run):
    _, workdir, seen, _ = run
    kept = from_pretrained(workdir)
    statistics, answers = seen[-1]
    for name, value in norm_of(kept).items():
        np.testing.assert_array_equal(value, statistics[name])
        assert not np.array_equal(value, seen[0][0][name])
    np.testing.assert_array_equal(ask(kept, {"image": PIXELS})["label"], answers)
    norm = kept.adapters["image"].stem.norms[0]
    norm.mean.value[...] = norm.mean.value[...] + 3.0
    assert not np.allclose(ask(kept, {"image": PIXELS})["label"], answers, atol=1e-3)


def test_every_update_counts_and_none_is_the_optimizers(run):
    *_, state = run
    statistics = flatten(state.statistics)
    counts = [int(value) for name, value in statistics.items() if name.endswith("count")]
    assert counts == [STEPS, STEPS]
    assert not statistics.keys() & flatten(state.parameters).keys()
    assert not [name for name in flatten(state.optimizer) if "norms" in name and "count" in name]


def test_a_model_to_evaluate_has_statistics_of_its_own(run):
    experiment, *_, state = run
    trainer = Trainer(experiment)
    model = trainer.model(state)
    before = norm_of(model)
    model.adapters["image"].stem.norms[0].mean.update(jnp.ones(3))
    assert not np.array_equal(norm_of(model)["mean"], before["mean"])
    for name, value in norm_of(trainer.model(state)).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_checkpoint_without_the_statistics_is_refused(run, tmp_path):
    *_, state = run
    without = dataclasses.replace(state, statistics=nnx.State({}))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, without, {})
        checkpoints.wait()
        with pytest.raises(InputError, match=r"(?s)another model.*missing statistics\.adapters\.image.*\.mean\.count"):
            checkpoints.restore(state)


def test_statistics_stay_float32_in_bfloat16(run):
    experiment, *_, state = run
    half = dataclasses.replace(experiment.model, compute=Compute.BFLOAT16)
    trainer = Trainer(dataclasses.replace(experiment, model=half))
    batch = {"inputs": {"image": PIXELS}, "targets": {"label": np.array([0, 1])}}
    after, _ = trainer.step(jax.tree.map(jnp.copy, state), batch)
    kinds = {name.rsplit(".", 1)[-1]: leaf.dtype for name, leaf in flatten(after.statistics).items()}
    assert kinds == {"value": jnp.float32, "hidden": jnp.float32, "count": jnp.int32}
