"""The training loop: one compiled step, checkpoints, the best model kept."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from perceiver.config import types_in
from perceiver.errors import InputError
from perceiver.model import Perceiver
from perceiver.pipeline import Batch, iterate
from perceiver.pretrained import from_pretrained
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.experiment import Experiment
from perceiver.training.metrics import Bar, Log, Mean


class TrainingError(RuntimeError):
    """The run cannot go on; the message says where it stopped and what to try."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. ema is None where no average is kept; statistics are those of batch norm.

    Arrays alone, without Flax's variables around them: those are taken apart in Python, at every step.
    """

    step: jax.Array
    parameters: nnx.State
    statistics: nnx.State
    optimizer: optax.OptState
    ema: nnx.State | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    step: updates made in all. finished: whether that is all of them. compilations: of the training step in this
    process. seconds: spent over all sessions of the run, compilation and validation included.
    """

    step: int
    finished: bool
    best: float
    best_step: int
    compilations: int
    seconds: float


class Trainer:
    """An experiment's compiled step and the graph of its model."""

    def __init__(self, experiment: Experiment, pretrained: Perceiver | None = None):
        self.experiment, self.pretrained = experiment, pretrained
        self.compilations = 0
        self.graph = nnx.split(experiment.model.abstract())[0]
        self._key = jax.random.key(experiment.seed + 1)
        self.step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]] = jax.jit(
            self._step, donate_argnums=0
        )

    def start(self) -> TrainState:
        """A fresh state."""
        fresh = nnx.state(self.experiment.model.build(self.experiment.seed), nnx.Param, nnx.BatchStat)
        parameters, statistics = nnx.as_pure(fresh)
        if self.pretrained is not None:
            parameters, _ = carried(parameters, nnx.as_pure(nnx.state(self.pretrained, nnx.Param)))
        ema = None if self.experiment.ema is None else _copied(parameters)
        # Compiled as one: an optimiser's start is a small program for each shape of parameter otherwise.
        optimizer = jax.jit(self.experiment.optimizer.init)(parameters)
        return TrainState(jnp.asarray(0, jnp.int32), parameters, statistics, optimizer, ema)

    def model(self, state: TrainState) -> Perceiver:
        """The model to evaluate: the average where one is kept. It owns its arrays, so training may go on."""
        kept = state.parameters if state.ema is None else state.ema
        return nnx.merge(self.graph, *_copied((kept, state.statistics)))

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        self.compilations += 1  # runs when JAX traces, which is once per compilation
        key = jax.random.fold_in(self._key, state.step)

        def loss_of(parameters: nnx.State) -> tuple[jax.Array, tuple[dict[str, jax.Array], nnx.State]]:
            model = nnx.merge(self.graph, parameters, state.statistics)
            loss, metrics = self.experiment.objective(model, batch, key)
            return loss, (metrics, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

        (loss, (metrics, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.parameters)
        updates, optimizer = self.experiment.optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        ema = None if state.ema is None else self._averaged(state.ema, parameters, state.step)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)} | metrics
        return TrainState(state.step + 1, parameters, statistics, optimizer, ema), metrics

    def _averaged(self, ema: nnx.State, parameters: nnx.State, step: jax.Array) -> nnx.State:
        """The usual moving average with a shorter memory at the start, so that it forgets the first parameters."""
        assert self.experiment.ema is not None
        decay = jnp.minimum(self.experiment.ema, (1.0 + step) / (10.0 + step))
        return optax.incremental_update(parameters, ema, 1.0 - decay)


def carried(fresh: nnx.State, trained: nnx.State) -> tuple[nnx.State, int]:
    """Fresh parameters, in whose place stand trained ones where name and shape agree; and how many do."""
    known = dict(nnx.to_flat_state(trained))
    flat = nnx.to_flat_state(fresh)
    same = [path in known and known[path].shape == leaf.shape for path, leaf in flat]
    chosen = {path: known[path] if agrees else leaf for (path, leaf), agrees in zip(flat, same, strict=True)}
    return nnx.from_flat_state(chosen), sum(same)


@jax.jit
def _copied(tree: Any) -> Any:
    """The same arrays in buffers of their own: a step gives away those of its argument, and no two may share one."""
    return jax.tree.map(jnp.copy, tree)


def fit(experiment: Experiment, workdir: Path, *, stop_at: int | None = None, log_every: int = 20) -> Outcome:
    """Train, or go on training, in `workdir`; the best model is in workdir/model.

    An experiment's pretraining goes first, to its end, in workdir/pretraining.

    stop_at: end this session after that many updates in all, as if interrupted; a later call goes on.

    Raises:
        TrainingError: the loss is not finite.
        InputError: workdir holds the checkpoints of another model; or too many samples are bad.
    """
    pretrained = None
    if experiment.pretraining is not None:
        fit(experiment.pretraining, workdir / "pretraining", log_every=log_every)
        types = types_in(experiment.pretraining.model)
        pretrained = from_pretrained(workdir / "pretraining" / "model", types=types)
    trainer = Trainer(experiment, pretrained)
    last = experiment.steps if stop_at is None else min(stop_at, experiment.steps)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        session = _Session(trainer, checkpoints, workdir)
        title = experiment.name
        with Log(workdir, session.done) as log, Bar(title, experiment.steps, session.done) as bar:
            if session.done:
                bar.say(f"{title}: goes on after step {session.done} of {experiment.steps}")
            session.run(last, log_every, log, bar)
    return Outcome(
        step=session.done,
        finished=session.done >= experiment.steps,
        best=session.best,
        best_step=session.best_step,
        compilations=trainer.compilations,
        seconds=session.seconds(),
    )


class _Session:
    """One process's share of a run."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, workdir: Path):
        self.trainer, self.checkpoints, self.workdir = trainer, checkpoints, workdir
        self.experiment = trainer.experiment
        self.iterator = iterate(self.experiment.batches)
        self.state = trainer.start()
        self.done, self.best, self.best_step, self.before = 0, -math.inf, 0, 0.0
        self._started = time.perf_counter()
        if checkpoints.newest is not None:
            self.state, record, self.done = checkpoints.restore(self.state, self.iterator)
            self.best_step, self.before = record["best_step"], record["seconds"]
            self.best = -math.inf if record["best"] is None else record["best"]
            if self.experiment.skipped is not None:
                self.experiment.skipped.restore(record.get("skipped", {}))

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self._started

    def run(self, last: int, log_every: int, log: Log, bar: Bar) -> None:
        means = Mean()
        while self.done < last:
            self.state, metrics = self.trainer.step(self.state, next(self.iterator))
            self.done += 1
            means.add(metrics)
            bar.advance()
            final = self.done == last
            if self.done % log_every == 0 or final:
                self._report(means.take(self.experiment.batch), log, bar)
            validate = self.done % self.experiment.validate_every == 0 or self.done == self.experiment.steps
            save = self.done % self.experiment.checkpoint_every == 0 or final
            if not (validate or save):
                continue
            jax.block_until_ready(self.state.step)  # so that steps under way count as training, not as pause
            with means.pause():
                if validate:
                    self._validate(log, bar)
                if save:
                    self._save()

    def _report(self, values: dict[str, float], log: Log, bar: Bar) -> None:
        log.write(self.done, "train", values)
        bar.show(self.done, values)
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"{self.workdir}: the loss became {values['loss']} before step {self.done}; the last checkpoint is "
                f"step {self.checkpoints.newest or 'none'}: try a lower learning rate or a stronger clip"
            )

    def _validate(self, log: Log, bar: Bar) -> None:
        model = self.trainer.model(self.state)
        scores: dict[str, Any] = dict(self.experiment.validate(model))
        if self.experiment.best not in scores:
            raise InputError(
                f"validate gave {', '.join(scores)}, but not {self.experiment.best!r}, the figure to keep by"
            )
        log.write(self.done, "validation", scores)
        listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        bar.say(f"{self.experiment.name}: step {self.done}, validation {listed}")
        if scores[self.experiment.best] > self.best:
            self.best, self.best_step = float(scores[self.experiment.best]), self.done
            model.save(self.workdir / "model")

    def _save(self) -> None:
        best = self.best if math.isfinite(self.best) else None
        record: dict[str, Any] = {"best": best, "best_step": self.best_step, "seconds": self.seconds()}
        if self.experiment.skipped is not None:
            record["skipped"] = self.experiment.skipped.problems
        self.checkpoints.save(self.done, self.state, self.iterator, record)
