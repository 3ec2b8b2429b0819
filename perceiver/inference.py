"""Asking a model questions outside training: compiled once per shape, in batches, back as numpy."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from perceiver.buckets import Buckets
from perceiver.config import suggestion
from perceiver.decoders.decoder import Output
from perceiver.errors import InputError, naming
from perceiver.model import Latents, Perceiver
from perceiver.pipeline import Batch, Sample, in_batches


@functools.partial(jax.jit, static_argnames=("graph", "outputs"))
def _ask(graph: nnx.GraphDef, state: nnx.State, inputs, masks, queries, outputs):
    return nnx.merge(graph, state)(inputs, masks, outputs, queries)


@functools.partial(jax.jit, static_argnames=("graph",))
def _encode(graph: nnx.GraphDef, state: nnx.State, inputs, masks):
    return nnx.merge(graph, state).encode(inputs, masks)


@functools.partial(jax.jit, static_argnames=("graph", "outputs"))
def _decode(graph: nnx.GraphDef, state: nnx.State, latents, queries, outputs):
    return nnx.merge(graph, state).decode(latents, outputs, queries)


@functools.partial(jax.jit, static_argnames=("graph",))
def _look(graph: nnx.GraphDef, state: nnx.State, inputs, masks):
    return nnx.merge(graph, state).attention(inputs, masks)


def ask(
    model: Perceiver,
    inputs: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    queries: Mapping[str, Any] | None = None,
    buckets: Buckets | None = None,
) -> dict[str, np.ndarray]:
    """One batch of inputs to answers; as calling the model, but compiled and on the host.

    buckets: compute at the smallest of these lengths that holds the batch; the answers stay the same. Where `queries`
        picks single tokens of a ragged input, which may be any of them, the batch stays as it is.
    """
    graph, state = nnx.split(model)
    names = None if outputs is None else tuple(outputs)
    given: Batch = {"inputs": dict(inputs), "masks": dict(masks or {})}
    picked = {getattr(model.config.outputs.get(name), "source", None) for name in queries or {}}
    cut = given if buckets is None or picked & set(buckets.lengths) else buckets.trimmed(given)
    answers = jax.device_get(_ask(graph, state, cut["inputs"], cut["masks"], dict(queries or {}), names))
    return answers if cut is given else {n: _whole(model, n, values, given) for n, values in answers.items()}


def _whole(model: Perceiver, name: str, values: np.ndarray, given: Batch) -> np.ndarray:
    """Zeros, the answer to masked queries, behind an answer that has one row for each of the tokens that were kept."""
    output = model.config.outputs[name]
    if output.source is None or output.shape is not None:
        return values
    examples = {n: jax.ShapeDtypeStruct(np.shape(raw), np.asarray(raw).dtype) for n, raw in given["inputs"].items()}
    kept = jax.eval_shape(lambda raw: model.tokenise(raw)[output.source], {output.source: examples[output.source]})
    missing = kept.values.shape[1] - values.shape[1]
    return np.pad(values, [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2))


def ask_all(
    model: Perceiver,
    samples: Sequence[Sample],
    batch: int,
    outputs: Sequence[str] | None = None,
    buckets: Buckets | None = None,
) -> dict[str, np.ndarray]:
    """Answers for any number of samples {"inputs": …, "masks": …}, joined along the first axis.

    buckets: as for `ask`, batch by batch. Samples in the order of their lengths gain most by it.
    """
    pieces = []
    for part, count in in_batches(samples, batch):
        answers = ask(model, part["inputs"], part.get("masks"), outputs, buckets=buckets)
        pieces.append({name: values[:count] for name, values in answers.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def encode(model: Perceiver, inputs: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> Latents:
    """Encode a batch once, to ask about it as often as wanted with `decode`; compiled, and kept on the device."""
    graph, state = nnx.split(model)
    return _encode(graph, state, dict(inputs), dict(masks or {}))


def decode(
    model: Perceiver,
    latents: Latents,
    outputs: Sequence[str] | None = None,
    queries: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Answers from what `encode` gave, compiled, on the host; arguments as for `Perceiver.decode`.

    An output with `Output.chunk` is decoded piece by piece inside of one compiled call: however many queries are
    asked, beyond the answers themselves it takes the memory of one chunk.
    """
    graph, state = nnx.split(model)
    names = None if outputs is None else tuple(outputs)
    return jax.device_get(_decode(graph, state, latents, dict(queries or {}), names))


def decode_at(model: Perceiver, latents: Latents, name: str, size: Sequence[int]) -> np.ndarray:
    """An output that a `Grid` asks, at any resolution: [b, *size, *head shape] float32, compiled once per size.

    latents: see `encode`. size: cells along each axis, such as (32, 32) of a picture of 8 x 8, over the same extent.
    The size that was declared gives what `decode` gives. A model was never told what there is between the cells that
    it was trained at: the positions' highest band says how fast an answer may change there.

    Raises:
        InputError: an unknown output, one that no grid asks, or a size that does not fit; the message names the output.
    """
    if name not in model.config.outputs:
        raise InputError(f"outputs[{name!r}]: no such output; {suggestion(name, model.config.outputs)}")
    output = model.config.outputs[name]
    with naming(f"outputs[{name!r}]"):
        if not isinstance(output, Output):
            raise InputError("expected an output that a Grid asks, got one from the mean of the latents")
        places = output.asked.places(size)
    answers = decode(model, latents, [name], {name: places})[name]
    return answers.reshape(len(answers), *size, *answers.shape[2:])


def look(model: Perceiver, inputs: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Where each latent looks, by modality: weights [b, heads, latents, tokens]."""
    graph, state = nnx.split(model)
    return jax.device_get(_look(graph, state, dict(inputs), dict(masks or {})))
