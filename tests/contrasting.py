"""Run with eight host devices by test_contrast: losses and gradients there, beside those of one device."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from perceiver.contrast import Embedded, in_chunks, infonce, sigmoid
from perceiver.training.sharding import MeshShape, seen_by_model

COUNT, WIDTH = 64, 12
MESHES = {
    "data": MeshShape(data=8),
    "data, fsdp": MeshShape(data=4, fsdp=2),
    "data, tensor": MeshShape(data=2, tensor=4),
}
LOSSES = {
    "infonce": lambda left, right, scale, bias: infonce(left, right, scale),
    "sigmoid": lambda left, right, scale, bias: sigmoid(left, right, scale, bias),
}


def made():
    """Sides with several positives and missing samples; a linear map embeds what is given."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, COUNT, WIDTH)).astype(np.float32)
    weights = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    group = rng.integers(0, 40, COUNT).astype(np.int32)
    return weights, left, right, group, rng.random((2, COUNT)) < 0.8


def normed(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def loss_of(loss, size=None):
    def embed(weights, raw):
        if size is None:
            return normed(raw @ weights)
        return in_chunks(lambda part, key: normed(part @ weights), raw, size)

    def value(trained, left, right, group, present):
        weights, scale, bias = trained
        sides = [Embedded(embed(weights, raw), group, here) for raw, here in zip((left, right), present, strict=True)]
        return loss(*sides, scale, bias)

    return jax.value_and_grad(value)


def difference(a, b):
    """The largest, relative to the largest element."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max() / max(1e-6, np.abs(y).max())) for x, y in pairs)


def main():
    weights, left, right, group, present = made()
    trained = (weights, np.float32(2.0), np.float32(-3.0))
    found = {}
    for name, loss in LOSSES.items():
        plain = jax.jit(loss_of(loss))(trained, left, right, group, present)
        cached = jax.jit(loss_of(loss, 16))(trained, left, right, group, present)
        found[f"{name}, cached"] = difference(cached, plain)
        for label, shape in MESHES.items():
            mesh = shape.mesh()
            cut = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
            rows = jax.device_put((left, right, group), cut)
            rows = (*rows, jax.device_put(present, NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))))
            for size in (None, 16):

                def on_mesh(*given, size=size, mesh=mesh, loss=loss):
                    with seen_by_model(mesh):
                        return loss_of(loss, size)(*given)

                program = jax.jit(on_mesh).lower(trained, *rows).compile()
                found[f"{name}, {label}, {size}"] = difference(program(trained, *rows), plain)
                text = program.as_text()
                found[f"{name}, {label}, {size}: whole"] = int(f"f32[{COUNT},{COUNT}]" in text)
                found[f"{name}, {label}, {size}: ring"] = int("collective-permute" in text)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
