"""Asking a model questions outside training: compiled once per shape, in batches, back as numpy."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from perceiver.model import Perceiver
from perceiver.pipeline import Sample, in_batches


@functools.partial(jax.jit, static_argnames=("graph", "outputs"))
def _ask(graph: nnx.GraphDef, state: nnx.State, inputs, masks, queries, outputs):
    return nnx.merge(graph, state)(inputs, masks, outputs, queries)


@functools.partial(jax.jit, static_argnames=("graph",))
def _look(graph: nnx.GraphDef, state: nnx.State, inputs, masks):
    return nnx.merge(graph, state).attention(inputs, masks)


def ask(
    model: Perceiver,
    inputs: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    queries: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """One batch of inputs to answers; as calling the model, but compiled and on the host."""
    graph, state = nnx.split(model)
    names = None if outputs is None else tuple(outputs)
    return jax.device_get(_ask(graph, state, dict(inputs), dict(masks or {}), dict(queries or {}), names))


def ask_all(
    model: Perceiver, samples: Sequence[Sample], batch: int, outputs: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Answers for any number of samples {"inputs": …, "masks": …}, joined along the first axis."""
    pieces = []
    for part, count in in_batches(samples, batch):
        answers = ask(model, part["inputs"], part.get("masks"), outputs)
        pieces.append({name: values[:count] for name, values in answers.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def look(model: Perceiver, inputs: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Where each latent looks, by modality: weights [b, heads, latents, tokens]."""
    graph, state = nnx.split(model)
    return jax.device_get(_look(graph, state, dict(inputs), dict(masks or {})))
