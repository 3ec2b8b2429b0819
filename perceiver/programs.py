"""A model as a program that runs without this package: a `jax.export` artefact, or ONNX."""

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.control.actions import act
from perceiver.control.observations import absent
from perceiver.errors import require
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.saving import flatten

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH = "b"
"""What the size of a batch is called in a program."""

Arrays = dict[str, np.ndarray]


class Sample(NamedTuple):
    """A batch of what a program takes, by the names of a model's inputs."""

    inputs: Mapping[str, Any]
    masks: Mapping[str, Any]


def as_program(model: Perceiver) -> bytes:
    """A serialised `jax.export.Exported` of (weights by their names in model.safetensors, inputs, masks)."""
    from jax import export as jax_export

    given = shapes(model.config, jax_export.symbolic_shape(BATCH)[0])
    weights = {name: jax.ShapeDtypeStruct(a.shape, _stored(a)) for name, a in parameters(model).items()}
    exported = jax_export.export(jax.jit(_by_name(model)), platforms=PLATFORMS)(weights, *given)
    return bytes(exported.serialize())


def as_onnx(model: Perceiver) -> bytes:
    """An ONNX model with weights of its own, made by jax2onnx.

    Raises:
        MissingExtraError: jax2onnx is not installed.
    """
    given = shapes(model.config, BATCH)
    names = sorted(given.inputs)
    graph, state = nnx.split(model)

    def flat(*arrays: Any) -> tuple[Any, ...]:
        inputs, masks = arrays[: len(names)], arrays[len(names) :]
        merged = nnx.merge(graph, state)
        answers = _answers(merged, dict(zip(names, inputs, strict=True)), dict(zip(names, masks, strict=True)))
        return tuple(answers[name] for name in sorted(answers))

    # Constants such as positions are computed here: jax2onnx replaces functions of JAX's that make them.
    answers = answer_shapes(model)
    for name in ("jax2onnx", "onnx_ir"):  # they tell at length of what they leave out
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):  # it uses what JAX and flax are about to give up
        proto = require("jax2onnx", "onnx").to_onnx(
            flat,
            [tree[name] for tree in given for name in names],
            return_mode="proto",
            input_names=[f"{kind}.{name}" for kind in Sample._fields for name in names],
            output_names=sorted(answers),
        )
    return proto.SerializeToString()


def run_program(model: Perceiver, content: bytes) -> Callable[[Sample], Arrays]:
    """What `as_program` made, with the model's weights."""
    from jax import export as jax_export

    program = jax.jit(jax_export.deserialize(bytearray(content)).call)
    weights = {name: jnp.asarray(a).view(_stored(a)) for name, a in parameters(model).items()}
    return lambda given: jax.device_get(program(weights, *given))


def run_onnx(content: bytes) -> Callable[[Sample], Arrays]:
    """What `as_onnx` made, by onnxruntime on the CPU.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors, not what it removes
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [answer.name for answer in session.get_outputs()]

    def run(given: Sample) -> Arrays:
        feed = {f"{kind}.{name}": a for kind, tree in given._asdict().items() for name, a in tree.items()}
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


def run_model(model: Perceiver) -> Callable[[Sample], Arrays]:
    """The model itself, compiled for this machine."""
    graph, state = nnx.split(model)
    ask = jax.jit(lambda state, inputs, masks: _answers(nnx.merge(graph, state), inputs, masks))
    return lambda given: jax.device_get(ask(state, *given))


def shapes(config: PerceiverConfig, batch: Any) -> Sample:
    """What a program of a model takes, as `jax.ShapeDtypeStruct`s. batch: a number, or a name for any."""
    names = config.inputs if config.robot is None else config.robot.sensors
    blanks = {name: absent(config.inputs[name]) for name in sorted(names)}
    kinds = [{name: blank[kind] for name, blank in blanks.items()} for kind in range(2)]
    return Sample(*({n: jax.ShapeDtypeStruct((batch, *a.shape), a.dtype) for n, a in kind.items()} for kind in kinds))


def answer_shapes(model: Perceiver) -> dict[str, jax.ShapeDtypeStruct]:
    """What a program of a model answers about one sample."""
    graph, state = nnx.split(model)
    return jax.eval_shape(lambda *pair: _answers(nnx.merge(graph, state), *pair), *shapes(model.config, 1))


def parameters(model: Perceiver) -> dict[str, Any]:
    """Everything that a program takes as weights, by its name in model.safetensors."""
    return flatten(nnx.split(model)[1])


def _by_name(model: Perceiver) -> Callable[..., dict[str, Any]]:
    """The model as a function of weights by their names, inputs and masks."""
    graph, state = nnx.split(model)
    tree, names = jax.tree.structure(state), list(flatten(state))

    def program(weights, inputs, masks):
        leaves = [weights[name] for name in names]
        # A file has bfloat16 as what it is, where a model has its bits: see `perceiver.quantised`.
        leaves = [jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x for x in leaves]
        return _answers(nnx.merge(graph, jax.tree.unflatten(tree, leaves)), inputs, masks)

    return program


def _answers(model: Perceiver, inputs: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    robot = model.config.robot
    return model(inputs, masks) if robot is None else {"actions": act(model, inputs, masks, robot.action)}


def _stored(array: Any) -> Any:
    return jnp.bfloat16 if array.dtype == np.uint16 else array.dtype
