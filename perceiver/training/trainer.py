"""One step of training, compiled: gradients, the optimiser, the average, and what of it lies on which device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from perceiver.model import Perceiver
from perceiver.pipeline import Batch
from perceiver.training.costs import Program, compiled
from perceiver.training.experiment import Experiment
from perceiver.training.faults import NonFinite, kept_where, module_norms
from perceiver.training.sharding import check_batch, laid_out, place, seen_by_model, whole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. ema is None where no average is kept; statistics are those of batch norm; faults
    are the steps that changed nothing but their number.

    Arrays alone, without Flax's variables around them: those are taken apart in Python, at every step.
    """

    step: jax.Array
    parameters: nnx.State
    statistics: nnx.State
    optimizer: optax.OptState
    ema: nnx.State | None
    faults: NonFinite


class Trainer:
    """An experiment's compiled step and the graph of its model.

    mesh: devices to train on, where it is more than the first; see `training.sharding`.
    abstract: on a mesh, the shapes, dtypes and shardings of a state.
    programs: the compiled steps, one for each shape of a batch, in the order of their first use.
    """

    def __init__(self, experiment: Experiment, pretrained: Perceiver | None = None, mesh: Mesh | None = None):
        self.experiment, self.pretrained, self.mesh = experiment, pretrained, mesh
        self.programs: dict[Any, Program] = {}
        self.graph = nnx.split(experiment.model.abstract())[0]
        # Given to the program, so that runs with other seeds share it; on the host, as all processes have to have it.
        self._key = np.asarray(jax.random.key_data(jax.random.key(experiment.seed + 1)))
        self.abstract: TrainState | None = None
        self._born, answers = None, None
        if mesh is not None:
            check_batch(experiment.batch, mesh)
            self.abstract = laid_out(jax.eval_shape(self._fresh, self._trained()), mesh)
            self._born = jax.tree.map(lambda leaf: leaf.sharding, self.abstract)
            answers = self._born, whole(mesh)
        self._jitted = jax.jit(self._step, donate_argnums=0, out_shardings=answers)

    def start(self) -> TrainState:
        """A fresh state; on a mesh, no device ever holds more of it than its part."""
        if self._born is None:
            return self._fresh(self._trained())
        return jax.jit(self._fresh, out_shardings=self._born)(self._trained())

    def _trained(self) -> nnx.State | None:
        if self.pretrained is None:
            return None
        return jax.tree.map(np.asarray, nnx.as_pure(nnx.state(self.pretrained, nnx.Param)))

    def _fresh(self, trained: nnx.State | None) -> TrainState:
        fresh = nnx.state(self.experiment.model.build(self.experiment.seed), nnx.Param, nnx.BatchStat)
        parameters, statistics = nnx.as_pure(fresh)
        if trained is not None:
            parameters, _ = carried(parameters, jax.tree.map(jnp.array, trained))
        ema = None if self.experiment.ema is None else _copied(parameters)
        # Compiled as one: an optimiser's start is a small program for each shape of parameter otherwise.
        optimizer = jax.jit(self.experiment.optimizer.init)(parameters)
        return TrainState(jnp.asarray(0, jnp.int32), parameters, statistics, optimizer, ema, NonFinite.none())

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update, and its metrics. The state is given away."""
        return self.program(state, batch).call(state, batch, self._key)

    def program(self, state: TrainState, batch: Batch) -> Program:
        """The compiled step for batches of this shape."""
        leaves, tree = jax.tree.flatten(batch)
        shape = tree, tuple((np.shape(leaf), leaf.dtype) for leaf in leaves)
        if shape not in self.programs:
            given: Any = state
            if self.mesh is None:  # a state from a checkpoint is bound to its device, a fresh one is not
                given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
            self.programs[shape] = compiled(self._jitted, given, batch, self._key)
        return self.programs[shape]

    def placed(self, batch: Batch) -> Batch:
        """A batch where a step wants it: on a mesh, each device has its samples."""
        return batch if self.mesh is None else place(batch, self.mesh)

    def model(self, state: TrainState) -> Perceiver:
        """The model to evaluate: the average where one is kept. It owns its arrays, so training may go on."""
        kept = (state.parameters if state.ema is None else state.ema), state.statistics
        if self.mesh is None:
            return nnx.merge(self.graph, *_copied(kept))
        together = jax.jit(lambda tree: tree, out_shardings=whole(self.mesh))(kept)
        return nnx.merge(self.graph, *jax.tree.map(lambda leaf: leaf.addressable_data(0), together))

    def gradients(
        self, state: TrainState, batch: Batch, seed: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array], nnx.State, nnx.State]:
        """A step's loss, metrics, new statistics and gradients. seed: the run's key as data, its own unless given."""
        data = jnp.asarray(self._key) if seed is None else seed
        key = jax.random.fold_in(jax.random.wrap_key_data(data), state.step)

        def loss_of(parameters: nnx.State) -> tuple[jax.Array, tuple[dict[str, jax.Array], nnx.State]]:
            model = nnx.merge(self.graph, parameters, state.statistics)
            loss, metrics = self.experiment.objective(model, batch, key)
            return loss, (metrics, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

        (loss, (metrics, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.parameters)
        return loss, metrics, statistics, gradients

    def _step(self, state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        with seen_by_model(self.mesh):
            return self._stepped(state, batch, seed)

    def _stepped(self, state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        loss, metrics, statistics, gradients = self.gradients(state, batch, seed)
        updates, optimizer = self.experiment.optimizer.update(gradients, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        ema = None if state.ema is None else self._averaged(state.ema, parameters, state.step)
        norms = module_norms(gradients)
        norm = optax.tree.norm(norms)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        faults = state.faults.after(finite, state.step + 1)
        new = TrainState(state.step, parameters, statistics, optimizer, ema, state.faults)
        new = dataclasses.replace(kept_where(finite, new, state), step=state.step + 1, faults=faults)
        parts = {f"gradient_norm/{name}": part for name, part in norms.items()}
        return new, {"loss": loss, "finite": finite, "gradient_norm": norm} | parts | metrics

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
