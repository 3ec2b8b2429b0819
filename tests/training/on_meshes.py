"""Run with eight host devices by test_sharding: trains one experiment on several meshes, and prints what came of it."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from perceiver.training.checkpoints import Checkpoints
from perceiver.training.loop import Trainer, fit
from perceiver.training.metrics import read_log
from perceiver.training.sharding import MeshShape
from tests.training.test_loop import tiny_experiment

MESHES = {
    "one": None,
    "data 2": MeshShape(data=2),
    "fsdp 8": MeshShape(fsdp=8),
    "all": MeshShape(data=2, fsdp=2, tensor=2),
}


def mesh_of(shape):
    return None if shape is None else shape.mesh(jax.devices()[: shape.devices])


def share_of(state):
    kernels = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 1 and leaf.size >= 2**14]
    assert kernels
    return max(leaf.addressable_shards[0].data.size / leaf.size for leaf in kernels)


def losses_of(experiment, mesh):
    """The losses of a run's steps; then the largest share of an array that a device holds, and the compilations."""
    trainer = Trainer(experiment, mesh=mesh)
    state, losses = trainer.start(), []
    for step in range(experiment.steps):
        state, metrics = trainer.step(state, trainer.placed(experiment.batches[step]))
        losses.append(float(metrics["loss"]))
    share = share_of(state)
    kept = trainer.model(state)
    answer = np.asarray(kept({"image": np.ones((1, 4, 4, 1), np.float32)})["label"])
    return {"losses": losses, "share": share, "compilations": trainer.compilations, "answer": answer.tolist()}


def main(folder):
    experiment = tiny_experiment(channels=128)
    found = {name: losses_of(experiment, mesh_of(shape)) for name, shape in MESHES.items()}

    # A run that goes on on another mesh, and then on one device.
    run = folder / "run"
    fit(experiment, run, stop_at=1, log_every=1, mesh=MESHES["fsdp 8"])
    fit(experiment, run, stop_at=3, log_every=1, mesh=MESHES["all"])
    fit(experiment, run, log_every=1)
    found["moved"] = {"losses": [line["loss"] for line in read_log(run) if line["group"] == "train"]}
    with Checkpoints(run / "checkpoints") as checkpoints:
        restored, _, step = checkpoints.restore(Trainer(experiment, mesh=mesh_of(MESHES["fsdp 8"])).start())
    found["moved"]["step"] = step
    found["moved"]["share"] = share_of(restored)

    for name, shape in {"devices": MeshShape(data=3), "batch": MeshShape(data=8)}.items():
        wrong = experiment if name == "devices" else dataclasses.replace(experiment, batch=12)
        try:
            fit(wrong, folder / name, mesh=shape)
        except ValueError as error:
            found[name] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
