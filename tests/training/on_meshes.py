"""Run with eight host devices by test_sharding: trains one experiment on several meshes, and prints what came of it."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from perceiver import Dense, Fourier, FromTokens, Image, Output
from perceiver.attend import Backend, Problem, attend, choose_backend
from perceiver.pipeline import training_stream
from perceiver.training.checkpoints import Checkpoints
from perceiver.training.loop import fit
from perceiver.training.metrics import read_log
from perceiver.training.sharding import MeshShape, seen_by_model, whole
from perceiver.training.trainer import Trainer
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


def trained(experiment, mesh):
    """The trainer, the state after all steps, and the losses."""
    trainer = Trainer(experiment, mesh=mesh)
    state, losses = trainer.start(), []
    for step in range(experiment.steps):
        state, metrics = trainer.step(state, trainer.placed(experiment.batches[step]))
        losses.append(float(metrics["loss"]))
    return trainer, state, losses


def losses_of(experiment, mesh):
    """The losses of a run's steps; then the largest share of an array that a device holds, and the compilations."""
    trainer, state, losses = trained(experiment, mesh)
    share = share_of(state)
    kept = trainer.model(state)
    answer = np.asarray(kept({"image": np.ones((1, 4, 4, 1), np.float32)})["label"])
    return {"losses": losses, "share": share, "compilations": len(trainer.programs), "answer": answer.tolist()}


def attention_over_parts():
    """The largest differences from plain attention, of answers and of all gradients, with several masks."""
    mesh = MeshShape(data=2, sequence=4).mesh()
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, count, 2, 8)).astype(np.float32) for count in (5, 2048, 2048))
    by_query = rng.random((2, 1, 5, 2048)) < 0.3
    by_query[0, 0, 2] = False  # sees nothing
    by_query[1, 0, 3, 512:] = False  # sees nothing on three of four devices
    masks = {"none": None, "by sample": rng.random((2, 1, 1, 2048)) < 0.5, "by query": by_query}
    chosen = []

    def over_parts(q, k, v, mask, **dropout):
        with seen_by_model(mesh):
            chosen.append(choose_backend(Problem(2, 2, 5, 2048, 8, 8, q.dtype)).name)
            return attend(q, k, v, mask, **dropout)

    def all_of(function, mask):
        def loss(q, k, v):
            out = function(q, k, v, mask)
            return jnp.sum(jnp.sin(3.0 * out)), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
        return [np.asarray(leaf) for leaf in (out, *gradients)]

    def plain(q, k, v, mask):
        return attend(q, k, v, mask, backend=Backend.XLA)

    q, k, v = jax.device_put((q, k, v), whole(mesh))  # a program is compiled for the devices of its arguments

    errors = {
        name: [float(np.abs(a - b).max()) for a, b in zip(all_of(over_parts, mask), all_of(plain, mask), strict=True)]
        for name, mask in masks.items()
    }
    ones = np.ones_like(v)
    key = jax.random.key(0)
    dropped = jax.jit(lambda q, k, v: over_parts(q, k, v, None, dropout=0.3, key=key))(q, k, ones)
    return {"errors": errors, "backend": chosen[0], "dropped": float(dropped.mean())}


def long_experiment(**options):
    config = tiny_experiment(**options).model
    picture = Image((128, 128, 1), position=Fourier(2))
    rng = np.random.default_rng(0)
    pictures = rng.random((40, 128, 128, 1), np.float32)

    def sample(index, rng):
        return {"inputs": {"image": pictures[index]}, "targets": {"label": np.int32(index % 3)}}

    return tiny_experiment(
        model=dataclasses.replace(config, inputs={"image": picture}),
        batches=training_stream(range(40), sample, seed=0, batch=8),
    )


def long_losses_of(mesh):
    """The losses, and how many arrays of the compiled step have all of the 16,384 tokens on one device."""
    trainer, _, losses = trained(long_experiment(), mesh)
    (program,) = trainer.programs.values()
    shapes = re.findall(r"= f32\[([\d,]*)\]", program.call.as_text())
    return {"losses": losses, "whole": sum("16384" in shape for shape in shapes)}


def samples_everywhere(mesh):
    """How many arrays of the compiled step have all of the 8 samples' 16,384 tokens on one device."""
    experiment = long_experiment(channels=128)
    question = Output(Dense(3), FromTokens("image", project=128))  # wide: its parameters are cut
    model = dataclasses.replace(experiment.model, outputs={**experiment.model.outputs, "field": question})

    def objective(model, batch, key):
        answers = model(batch["inputs"], outputs=["field", "label"], key=key)
        return sum(jnp.square(answer).mean() for answer in answers.values()), {}

    trainer = Trainer(dataclasses.replace(experiment, model=model, objective=objective), mesh=mesh)
    program = trainer.program(trainer.start(), trainer.placed(experiment.batches[0]))
    shapes = re.findall(r"= (?:f32|bf16)\[([\d,]*)\]", program.call.as_text())
    return sum(shape.startswith("8,16384,") for shape in shapes)


def main(folder):
    experiment = tiny_experiment(channels=128)
    found = {name: losses_of(experiment, mesh_of(shape)) for name, shape in MESHES.items()}

    found["attention"] = attention_over_parts()
    for name, shape in {"long on one": None, "long": MeshShape(sequence=4)}.items():
        found[name] = long_losses_of(mesh_of(shape))

    found["samples"] = {name: samples_everywhere(mesh_of(MESHES[name])) for name in ("one", "fsdp 8")}

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
