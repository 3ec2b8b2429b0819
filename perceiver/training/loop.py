"""The training loop: steps, checkpoints, the best model kept."""

import dataclasses
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from perceiver.config import types_in
from perceiver.diagnostics import diagnose
from perceiver.errors import InputError
from perceiver.pipeline import Batch, digest, iterate
from perceiver.pretrained import from_pretrained
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.costs import matmul_peak, memory_peaks
from perceiver.training.experiment import Experiment
from perceiver.training.faults import TrainingError, describe
from perceiver.training.lock import held
from perceiver.training.metrics import Bar, Log, Mean
from perceiver.training.processes import first, meet
from perceiver.training.profiling import Profile
from perceiver.training.sharding import MeshShape
from perceiver.training.spikes import Spikes
from perceiver.training.stopping import Stopping
from perceiver.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    step: updates made in all. finished: whether that is all of them. compilations: of the training step in this
    process. seconds: spent over all sessions of the run, compilation and validation included. stopped_by: the signal
    that ended it early. faults: steps, and rollbacks, that went wrong and were made good, by what they are.
    """

    step: int
    finished: bool
    best: float
    best_step: int
    compilations: int
    seconds: float
    stopped_by: signal.Signals | None = None
    faults: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether something is left to do, or a signal asked to leave it."""
        return not self.finished or self.stopped_by is not None


def fit(
    experiment: Experiment,
    workdir: Path,
    *,
    stop_at: int | None = None,
    log_every: int = 20,
    mesh: MeshShape | None = None,
    profile: int = 0,
    workers: int = 0,
) -> Outcome:
    """Train, or go on training, in `workdir`; the best model is in workdir/model.

    An experiment's pretraining goes first, to its end, in workdir/pretraining. SIGTERM and Ctrl-C end the session after
    the step under way, saved; then, as with `stop_at`, a later call goes on.

    stop_at: end this session after that many updates in all, as if interrupted.
    mesh: how the devices share the work; unless given one device does it, or, of several processes, all devices, each
        with a part of the batch. A run may go on on another mesh, and with another number of processes.
    profile: trace so many steps of this session into workdir/profile.
    workers: processes that prepare the data, in place of two threads; see `pipeline.iterate`.

    Raises:
        TrainingError: the loss or its gradients are not finite too often.
        SaveError: a checkpoint cannot be written.
        ConfigError: the mesh does not fit the devices or the batch.
        InputError: workdir is in use, cannot be written to, or holds the checkpoints of another model or other data; or
            too many samples are bad.
    """
    if mesh is None and jax.process_count() > 1:
        mesh = MeshShape(data=jax.device_count())
    with held(workdir), Stopping() as stopping:
        how = _How(log_every, None if mesh is None else mesh.mesh(), profile, workers)
        return _fit(experiment, workdir, stop_at, how, stopping)


class _How(NamedTuple):
    """See `fit`."""

    log_every: int
    mesh: Mesh | None
    profile: int
    workers: int


def _fit(experiment: Experiment, workdir: Path, stop_at: int | None, how: _How, stopping: Stopping) -> Outcome:
    pretrained = None
    if experiment.pretraining is not None:
        before = _fit(experiment.pretraining, workdir / "pretraining", None, how, stopping)
        if not before.finished:
            return dataclasses.replace(before, step=0)
        types = types_in(experiment.pretraining.model)
        pretrained = from_pretrained(workdir / "pretraining" / "model", types=types)
    experiment = experiment.begun(pretrained)
    trainer = Trainer(experiment, pretrained, how.mesh)
    last = experiment.steps if stop_at is None else min(stop_at, experiment.steps)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        session = _Session(trainer, checkpoints, workdir, how)
        title = experiment.name
        logs = workdir if first() else workdir / "processes" / str(jax.process_index())
        with Log(logs, session.done) as log, Bar(title, experiment.steps, session.done, quiet=not first()) as bar:
            if session.done:
                bar.say(f"{title}: goes on after step {session.done} of {experiment.steps}")
            try:
                session.run(last, log, bar, stopping)
            finally:
                session.profile.end(session.state)
                session.batches.close()
    meet("the best model is in place")
    return Outcome(
        step=session.done,
        finished=session.done >= experiment.steps,
        best=session.best,
        best_step=session.best_step,
        compilations=len(trainer.programs),
        seconds=session.seconds(),
        stopped_by=stopping.signal,
        faults={"nonfinite_steps": int(session.state.faults.total), "rollbacks": session.rollbacks},
    )


class _Session:
    """One process's share of a run.

    position: batches taken from the stream, which are more than the steps once a run was rolled back.
    """

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, workdir: Path, how: _How):
        self.trainer, self.checkpoints, self.workdir = trainer, checkpoints, workdir
        self.log_every = how.log_every
        self.experiment = trainer.experiment
        self.state = trainer.start()
        self.done, self.position, self.rollbacks = 0, 0, 0
        self.best, self.best_step, self.before = -math.inf, 0, 0.0
        self.profile = Profile(workdir / "profile", how.profile)
        self.spikes = None if self.experiment.spike is None else Spikes(self.experiment.spike)
        self._started = time.perf_counter()
        restored = checkpoints.restore(self.state)
        if restored is not None:
            self.state, record, self.done = restored
            self._take(record)
        mine = self.experiment.stream.shared(jax.process_index(), jax.process_count())
        self.batches = iterate(mine, self.position, processes=how.workers)

    def _take(self, record: Mapping[str, Any]) -> None:
        """Go on with what a checkpoint noted.

        Raises:
            InputError: the data are not those that the run was trained on.
        """
        self.best_step, self.before = record["best_step"], record["seconds"]
        self.best = -math.inf if record["best"] is None else record["best"]
        self.position, self.rollbacks = record["position"], record["rollbacks"]
        if self.experiment.skipped is not None:
            self.experiment.skipped.restore(record.get("skipped", {}))
        if digest(self.experiment.stream[self.position - 1]) != record["batch"]:
            raise InputError(
                f"{self.workdir}: batch {self.position} of the data is not the one that step {self.done} was trained "
                "on, so the run cannot go on as if it had not stopped: the dataset, its augmentation or a library "
                "that reads it has changed. Bring it back, or train in another --workdir"
            )

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self._started

    def run(self, last: int, log: Log, bar: Bar, stopping: Stopping) -> None:
        devices = 1 if self.trainer.mesh is None else self.trainer.mesh.size
        means = Mean(peak=devices * matmul_peak(self.experiment.model.compute.value))
        while self.done < last:
            self.profile.before_step(self.state)
            started = time.perf_counter()
            batch = next(self.batches)
            read = time.perf_counter()
            placed = self.trainer.placed(batch)
            with means.pause():
                program = self.trainer.program(self.state, placed)  # compiles what is new
            ready = time.perf_counter()
            self.state, metrics = self.trainer.step(self.state, placed)
            self.done, self.position = self.done + 1, self.position + 1
            means.add(metrics, data=read - started, host=time.perf_counter() - ready, flops=program.flops)
            bar.advance()
            final = stopping.after(self.done) or self.done == last
            if self.done % self.log_every == 0 or final:
                loss = self._report(means.take(self.experiment.batch) | self._costs(), log, bar)
                if self.spikes is not None and self.spikes.is_one(loss):
                    self._roll_back(loss, log, bar)
                    continue
            validate = self.done % self.experiment.validate_every == 0 or self.done == self.experiment.steps
            save = self.done % self.experiment.checkpoint_every == 0 or final
            if not (validate or save):
                continue
            jax.block_until_ready(self.state.step)  # so that steps under way count as training, not as pause
            with means.pause():
                if validate:
                    self._validate(batch, log, bar)
                if save:
                    self._save(batch)
            if final:
                break
        if stopping.signal is not None:
            bar.say(f"{self.experiment.name}: {stopping.signal.name} came; saving step {self.done}")

    def _costs(self) -> dict[str, float]:
        """Of this session so far: what was compiled and how long that took, and the bytes taken at most."""
        programs = self.trainer.programs.values()
        memory = {"step": float(max(program.memory for program in programs))} | memory_peaks()
        return {
            "compilations": float(len(programs)),
            "compile_seconds": sum(program.seconds for program in programs),
            **{f"memory_bytes/{name}": value for name, value in memory.items()},
        }

    def _report(self, values: dict[str, float], log: Log, bar: Bar) -> float:
        log.write(self.done, "train", values)
        bar.show(self.done, values)
        in_a_row = int(self.state.faults.in_a_row)
        if in_a_row >= min(self.experiment.most_nonfinite, self.done):
            path = describe(self.trainer, self.state, self.position - self.done, self.workdir)
            raise TrainingError(
                f"{self.workdir}: the loss ({values['loss']:.4g}) or its gradients are not finite, {in_a_row} step(s) "
                f"in a row up to step {int(self.state.faults.last)}, which were left out; the last checkpoint is step "
                f"{self.checkpoints.newest or 'none'}. {path} says which samples and which part of the model: look at "
                "them, try a lower learning rate or a stronger clip"
            )
        return values["loss"]

    def _roll_back(self, loss: float, log: Log, bar: Bar) -> None:
        """To the newest checkpoint, but not to its place in the data: what made the loss jump is left out.

        Raises:
            TrainingError: there is none, or it has happened too often.
        """
        assert self.spikes is not None
        self.checkpoints.wait()
        said = f"the loss rose to {loss:.4f} before step {self.done}, from about {self.spikes.usual:.4f}"
        if self.rollbacks >= self.experiment.most_rollbacks:
            raise TrainingError(
                f"{self.workdir}: {said}, after {self.rollbacks} rollbacks: try a lower learning rate or a longer "
                "warm-up"
            )
        restored = self.checkpoints.restore(self.state)
        if restored is None:
            raise TrainingError(f"{self.workdir}: {said}, and there is no checkpoint yet to go back to")
        self.state, _, self.done = restored
        self.rollbacks += 1
        log.rewind(self.done)
        bar.rewind(self.done)
        bar.say(f"{self.experiment.name}: {said}; back to step {self.done}, the data goes on")

    def _validate(self, batch: Batch, log: Log, bar: Bar) -> None:
        model = self.trainer.model(self.state)
        if self.experiment.diagnosed and first():
            seen = jax.tree.map(lambda leaf: leaf[: self.experiment.diagnosed], batch)
            log.write(self.done, "latents", diagnose(model, seen["inputs"], seen.get("masks")))
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
            if first():
                model.save(self.workdir / "model")

    def _save(self, batch: Batch) -> None:
        if jax.process_count() > 1:  # whatever their number
            batch = self.experiment.stream[self.position - 1]
        record: dict[str, Any] = {
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "seconds": self.seconds(),
            "position": self.position,
            "rollbacks": self.rollbacks,
            "batch": digest(batch),
        }
        if self.experiment.skipped is not None:
            record["skipped"] = self.experiment.skipped.problems
        self.checkpoints.save(self.done, self.state, record)
