"""What goes wrong in a run and does not end it, or ends it with a reason; processes that are killed: tests/faults."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest

from perceiver import ConfigError, InputError
from perceiver.pipeline import training_stream
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.faults import TrainingError
from perceiver.training.loop import fit
from perceiver.training.spikes import EARLIER, LEAST, Spikes
from perceiver.training.trainer import Trainer
from tests.training.test_loop import STEPS, equal, final_state, log_without_rates, tiny_experiment

BAD = 3
"""An item of the tiny experiment."""


def steps_with(item, experiment, steps=STEPS):
    """Steps, counted from 1, whose batch holds an item."""
    return [step + 1 for step in range(steps) if item in experiment.batches.item_numbers(step)[0]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of tiny_experiment(), to be compared with."""
    workdir = tmp_path_factory.mktemp("whole")
    fit(tiny_experiment(), workdir, log_every=1)
    return workdir, final_state(tiny_experiment(), workdir)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path):
    experiment = tiny_experiment(broken=BAD)
    (bad,) = steps_with(BAD, experiment)
    outcome = fit(experiment, tmp_path, log_every=1)
    assert outcome.finished
    assert outcome.faults["nonfinite_steps"] == 1
    state = final_state(experiment, tmp_path)
    assert int(state.faults.last) == bad
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    lines = {line["step"]: line for line in log_without_rates(tmp_path) if line["group"] == "train"}
    assert [lines[step]["finite"] for step in range(1, STEPS + 1)] == [
        float(step != bad) for step in range(1, STEPS + 1)
    ]
    assert lines[bad]["loss"] == "nan"


def test_the_state_behind_such_a_step_is_the_one_before_it():
    experiment = tiny_experiment(broken=BAD)
    (bad,) = steps_with(BAD, experiment)
    trainer = Trainer(experiment)
    before, _ = trainer.step(trainer.start(), experiment.batches[bad % STEPS])  # a good one
    kept = jax.tree.map(np.asarray, before)
    after, _ = trainer.step(before, experiment.batches[bad - 1])
    for part in ("parameters", "statistics", "optimizer", "ema"):
        assert equal(getattr(kept, part), getattr(after, part))
    assert (int(after.step), int(after.faults.in_a_row)) == (2, 1)


def test_a_mean_leaves_out_what_is_not_finite(tmp_path):
    fit(tiny_experiment(broken=BAD), tmp_path, log_every=STEPS)
    (line,) = [line for line in log_without_rates(tmp_path) if line["group"] == "train"]
    assert line["finite"] == 1 - 1 / STEPS
    assert np.isfinite(line["loss"])


def test_too_many_in_a_row_end_the_run_and_say_which_samples_and_which_part(tmp_path):
    experiment = tiny_experiment(broken=slice(None))
    with pytest.raises(
        TrainingError, match=r"not finite, 2 step\(s\) in a row up to step 2.*last checkpoint is step none"
    ):
        fit(dataclasses.replace(experiment, most_nonfinite=2), tmp_path, log_every=2)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["step"], found["steps_in_a_row"], found["steps_in_all"], found["loss"]) == (2, 2, 2, "nan")
    assert found["items"] == experiment.batches.item_numbers(1)
    assert found["arrays_not_finite"] == {"inputs.image": 8 * 16}
    assert found["gradient_norms"].keys() >= {"encoder.latents", "decoders.label"}


@pytest.mark.slow
def test_a_run_with_one_bad_step_resumes_bit_for_bit(tmp_path):
    experiment = tiny_experiment(broken=BAD)
    fit(experiment, tmp_path / "whole", log_every=1)
    fit(experiment, tmp_path / "parts", stop_at=2, log_every=1)
    fit(experiment, tmp_path / "parts", log_every=1)
    assert equal(*[final_state(experiment, tmp_path / name) for name in ("whole", "parts")])


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_ends_the_session_at_its_step_saved(name, tmp_path, whole):
    number, calls = getattr(signal, name), []
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def interrupted(model):
        if not calls:
            calls.append(os.kill(os.getpid(), number))
        return tiny_experiment().validate(model)

    outcome = fit(tiny_experiment(validate=interrupted, checkpoint_every=STEPS), tmp_path, log_every=1)
    assert (outcome.step, outcome.finished, outcome.stopped_by) == (3, False, number)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [3]
    assert fit(tiny_experiment(), tmp_path, log_every=1).finished
    assert equal(whole[1], final_state(tiny_experiment(), tmp_path))
    assert log_without_rates(whole[0]) == log_without_rates(tmp_path)


@pytest.mark.slow
def test_a_signal_during_pretraining_ends_the_run(tmp_path):
    first = tiny_experiment()

    def interrupted(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return first.validate(model)

    before = dataclasses.replace(first, name="before", validate=interrupted)
    outcome = fit(dataclasses.replace(first, pretraining=before), tmp_path)
    assert (outcome.step, outcome.finished, outcome.stopped_by) == (0, False, signal.SIGTERM)
    assert fit(dataclasses.replace(first, pretraining=dataclasses.replace(first, name="before")), tmp_path).finished


@pytest.mark.slow
def test_other_data_under_the_same_run_are_refused(tmp_path):
    fit(tiny_experiment(), tmp_path, stop_at=2)
    with pytest.raises(InputError, match=r"batch 2 of the data is not the one that step 2 was trained on"):
        fit(tiny_experiment(broken=slice(None)), tmp_path)
    assert fit(tiny_experiment(), tmp_path).finished  # nothing was lost by asking


# --- spikes -----------------------------------------------------------------------------------------------------------


def test_a_spike_is_far_above_the_noise_of_the_losses_before():
    rng = np.random.default_rng(0)
    falling = 2.0 * np.exp(-np.arange(100) / 30) + 0.05 * rng.standard_normal(100)
    spikes = Spikes(8.0)
    assert not any(spikes.is_one(loss) for loss in falling)
    assert spikes.is_one(2.0)
    assert spikes.is_one(2.0)  # and does not become what is usual
    assert not spikes.is_one(float("nan"))
    assert not spikes.is_one(falling[-1])


def test_the_first_losses_are_no_spikes_whatever_they_are():
    spikes = Spikes(3.0)
    assert not any(spikes.is_one(loss) for loss in (1.0, 100.0, 1.0, 50.0, 1.0)[:LEAST])
    assert EARLIER > LEAST


@pytest.mark.parametrize("change", [{"spike": 0.0}, {"most_nonfinite": 0}])
def test_impossible_limits_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        tiny_experiment(**change)


def spiking(item, **changes):
    """An experiment whose loss jumps where the batch holds an item, told by its label."""
    experiment = tiny_experiment(steps=16, checkpoint_every=2, validate_every=16, **changes)

    def sample(index, rng):
        targets = {"label": np.int32(index % 3), "jump": np.float32(index == item)}
        return {"inputs": {"image": rng.random((4, 4, 1)).astype(np.float32)}, "targets": targets}

    def objective(model, batch, key):
        loss, metrics = experiment.objective(model, batch, key)
        return loss + 1000.0 * batch["targets"]["jump"].sum(), metrics

    stream = training_stream(range(400), sample, seed=0, batch=8)
    return dataclasses.replace(experiment, batches=stream, objective=objective, spike=20.0)


@pytest.mark.slow
def test_a_jump_of_the_loss_goes_back_and_leaves_out_the_data_that_made_it(tmp_path):
    item = spiking(0).batches.item_numbers(9)[0][0]  # in the tenth batch
    experiment = spiking(item)
    assert steps_with(item, experiment, 20) == [10]
    outcome = fit(experiment, tmp_path, log_every=1)
    assert (outcome.finished, outcome.step, outcome.faults["rollbacks"]) == (True, 16, 1)
    lines = [line for line in log_without_rates(tmp_path) if line["group"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert max(line["loss"] for line in lines) < 100
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        _, record, step = checkpoints.restore(Trainer(experiment).start())
    assert (step, record["position"], record["rollbacks"]) == (16, 18, 1)  # back from 10 to 8


@pytest.mark.slow
def test_a_run_that_went_back_resumes_bit_for_bit(tmp_path):
    experiment = spiking(spiking(0).batches.item_numbers(9)[0][0])
    fit(experiment, tmp_path / "whole", log_every=1)
    fit(experiment, tmp_path / "parts", stop_at=12, log_every=1)
    fit(experiment, tmp_path / "parts", log_every=1)
    assert equal(*[final_state(experiment, tmp_path / name) for name in ("whole", "parts")])


@pytest.mark.slow
def test_the_same_jump_without_the_option_is_trained_on(tmp_path):
    item = spiking(0).batches.item_numbers(9)[0][0]
    fit(dataclasses.replace(spiking(item), spike=None), tmp_path, log_every=1)
    assert max(line["loss"] for line in log_without_rates(tmp_path) if line["group"] == "train") > 1000


@pytest.mark.slow
def test_too_many_rollbacks_end_the_run(tmp_path):
    item = spiking(0).batches.item_numbers(9)[0][0]
    with pytest.raises(TrainingError, match=r"the loss rose to 1\d\d\d\.\d+ before step 10.*after 0 rollbacks"):
        fit(spiking(item, most_rollbacks=0), tmp_path, log_every=1)
