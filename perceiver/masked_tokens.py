"""Pictures drawn in a few steps: all that is missing is foretold at once, and the surest of it is kept.

This is MaskGIT (arXiv 2202.04200). A Perceiver needs no token for what is missing: the latents look at the pixels that
are known, and the queries ask for those that are not.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.levels import UNKNOWN, Levels
from perceiver.config import suggestion
from perceiver.decoders.decoder import Output
from perceiver.decoders.heads import Classes
from perceiver.errors import ConfigError, InputError, naming
from perceiver.generation import DRAWN, Sampling
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.objectives import accuracy, cross_entropy
from perceiver.pipeline import Batch, Sample, in_batches
from perceiver.typing import Array, Bool, Float, Int

BATCH = 64
"""Pictures of one compiled call when a model is judged."""


@dataclasses.dataclass(frozen=True)
class Filling:
    """How what is missing comes.

    steps: after the k-th of them, the share cos(pi k / 2 steps) of what was missing is missing still.
    sampling: how each level is drawn. noise: of the Gumbel noise that is added to a drawn level's log-probability,
        before the likeliest are kept; it falls to 0 over the steps. Without any the same pictures come again and again.
    """

    steps: int = 8
    sampling: Sampling = DRAWN
    noise: float = 4.5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"Filling.steps: expected at least 1, got {self.steps}")
        if not 0.0 <= self.noise < math.inf:
            raise ConfigError(f"Filling.noise: expected 0 or more, got {self.noise}")
        if self.sampling.repetition != 1.0 or self.sampling.watermark is not None:
            raise ConfigError("Filling.sampling: expected neither repetition nor a watermark, which are for text")

    @property
    def left(self) -> Float[np.ndarray, "steps"]:
        """The share that is still missing after each step."""
        shares = np.cos(np.pi / 2 * np.arange(1, self.steps + 1) / self.steps)
        return np.append(shares[:-1], 0.0).astype(np.float32)


EIGHT_STEPS = Filling()
"""What is taken unless another is given."""


def fill(
    logits_of: Callable[[Int[Array, "b n"]], Float[Array, "b n v"]],
    ids: Int[Array, "b n"],
    filling: Filling,
    key: jax.Array,
) -> Int[Array, "b n"]:
    """Fill in what is UNKNOWN, and leave the rest as it is. Can be compiled.

    Each row draws its own randomness, so that it does not matter what else is filled in. At least one id comes with
    each step until none is missing.
    """
    missing = (ids == UNKNOWN).sum(axis=1)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(ids.shape[0]))

    def step(ids: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        number, left = now
        open_ = ids == UNKNOWN
        own = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(row, number)))(keys)
        logits = logits_of(ids)
        drawn = jax.vmap(filling.sampling)(logits, own[:, 0])
        sure = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], axis=-1)[..., 0]
        gumbel = jax.vmap(lambda row: jax.random.gumbel(row, ids.shape[1:]))(own[:, 1])
        sure = jnp.where(open_, sure + filling.noise * (1 - (number + 1) / filling.steps) * gumbel, jnp.inf)
        stays = jnp.clip(jnp.floor(missing * left), 0, jnp.maximum(open_.sum(axis=1) - 1, 0))
        return jnp.where(open_ & (_ranks(sure) >= stays[:, None]), drawn, ids), None

    return jax.lax.scan(step, ids, (jnp.arange(filling.steps), jnp.asarray(filling.left)))[0]


def filled(
    model: Perceiver,
    inputs: Mapping[str, Any],
    masks: Mapping[str, Any] | None = None,
    *,
    filling: Filling = EIGHT_STEPS,
    seed: int = 0,
) -> Int[np.ndarray, "b h w"]:
    """Pictures whose UNKNOWN pixels are filled in, int32, from whatever else the model is given; compiled once.

    model: has an input `Levels`, and an output of the same name that asks a Grid of that shape for Classes, as many as
    there are levels. inputs, masks: as for the model; the picture may be left out, which draws all of it.

    Raises:
        InputError: no such model, nothing given, or inputs that do not fit.
    """
    name = canvas(model.config)
    given = {other: np.asarray(raw) for other, raw in inputs.items()}
    if not given:
        raise InputError(f"inputs: expected what to draw from, such as {name!r} with UNKNOWN pixels, got nothing")
    shape = model.config.inputs[name].shape
    if name not in given:
        given[name] = np.full((len(next(iter(given.values()))), *shape), UNKNOWN, np.int32)
    elif given[name].shape[1:] != shape or given[name].dtype.kind not in "iu":
        raise InputError(f"inputs[{name!r}]: expected integers (b, {shape[0]}, {shape[1]}), got {given[name].shape}")
    graph, state = nnx.split(model)
    return np.asarray(_filled(graph, state, given, dict(masks or {}), jax.random.key(seed), name, filling))


@functools.partial(jax.jit, static_argnames=("graph", "name", "filling"))
def _filled(
    graph: nnx.GraphDef, state: nnx.State, inputs: Any, masks: Any, key: jax.Array, name: str, filling: Filling
) -> Int[Array, "b h w"]:
    model = nnx.merge(graph, state)
    ids = jnp.asarray(inputs[name], jnp.int32)

    def logits_of(flat: Array) -> Array:
        return _logits(model, inputs | {name: flat.reshape(ids.shape)}, masks, name)

    return fill(logits_of, ids.reshape(len(ids), -1), filling, key).reshape(ids.shape)


def drawn(
    model: Perceiver, labels: Sequence[int | str], *, filling: Filling = EIGHT_STEPS, seed: int = 0
) -> Int[np.ndarray, "b h w"]:
    """A picture for each label, by its number or name, of a model with an input `label`; see `filled`.

    Raises:
        InputError: no such model, no labels, or one that the model does not know.
    """
    canvas(model.config)
    if "label" not in model.config.inputs:
        raise InputError(f"inputs['label']: no such modality; {suggestion('label', model.config.inputs)}")
    if not len(labels):
        raise InputError("labels: expected at least one, got none")
    with naming("inputs['label']"):
        numbers = np.stack([model.config.inputs["label"].load(label)[0] for label in labels])
    return filled(model, {"label": numbers}, filling=filling, seed=seed)


def canvas(config: Any) -> str:
    """The name of the picture that a model fills in.

    Raises:
        InputError: there is none.
    """
    if isinstance(config, PerceiverConfig):
        for name, adapter in config.inputs.items():
            output = config.outputs.get(name)
            if not isinstance(adapter, Levels) or not isinstance(output, Output):
                continue
            if isinstance(output.head, Classes) and (output.head.count, output.shape) == (
                adapter.levels,
                adapter.shape,
            ):
                return name
    raise InputError(
        "expected a model with an input Levels, and an output of that name for the Classes of its pixels, got a "
        f"{type(config).__name__} without"
    )


# --- teaching and judging -------------------------------------------------------------------------------------------


def filling_in(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
    """The objective: nats of a hidden pixel, of each picture a share of cos(pi u / 2), with u even in [0, 1].

    batch: whole pictures among the inputs. Metrics: the share of pixels whose level is the likeliest.
    """
    name = canvas(model.config)
    share_key, order_key, model_key = jax.random.split(jax.random.key(0) if key is None else key, 3)
    wanted = jnp.asarray(batch["inputs"][name])
    wanted = wanted.reshape(len(wanted), -1)
    shares = jnp.cos(jnp.pi / 2 * jax.random.uniform(share_key, (len(wanted),)))
    known = jnp.minimum(jnp.floor((1 - shares) * wanted.shape[1]), wanted.shape[1] - 1)
    hidden = _hidden(wanted.shape, known, order_key)
    logits = _foretold(model, batch["inputs"], batch.get("masks"), name, hidden, None if key is None else model_key)
    return cross_entropy(logits, wanted, hidden), {"accuracy": accuracy(logits, wanted, hidden)}


def nats(model: Perceiver, samples: Sequence[Sample], orders: int = 8, batch: int = BATCH) -> Float[np.ndarray, "n"]:
    """Nats per pixel of each picture, float64: what a model needs that fills in one pixel after the other, at random.

    The mean over numbers of known pixels, from none to all but one, of the nats of a hidden one (arXiv 2110.02037); of
    each picture, `orders` such numbers, evenly spread, with the same randomness for every model.
    """
    name = canvas(model.config)
    graph, state = nnx.split(model)
    found = []
    for number, (part, count) in enumerate(in_batches(samples, batch)):
        key = jax.random.fold_in(jax.random.key(0), number)
        found.append(np.asarray(_nats(graph, state, part["inputs"], part.get("masks"), key, name, orders))[:count])
    return np.concatenate(found).astype(np.float64)


@functools.partial(jax.jit, static_argnames=("graph", "name", "orders"))
def _nats(
    graph: nnx.GraphDef, state: nnx.State, inputs: Any, masks: Any, key: jax.Array, name: str, orders: int
) -> Float[Array, "b"]:
    model = nnx.merge(graph, state)
    wanted = jnp.asarray(inputs[name])
    wanted = wanted.reshape(len(wanted), -1)

    def one(number: Array) -> Array:
        share_key, order_key = jax.random.split(jax.random.fold_in(key, number))
        shares = (number + jax.random.uniform(share_key, (len(wanted),))) / orders
        hidden = _hidden(wanted.shape, jnp.floor(shares * wanted.shape[1]), order_key)
        chances = jax.nn.log_softmax(_foretold(model, inputs, masks, name, hidden))
        own = jnp.take_along_axis(chances, wanted[..., None], axis=-1)[..., 0]
        return -jnp.where(hidden, own, 0.0).sum(axis=1) / hidden.sum(axis=1)

    return jax.lax.map(one, jnp.arange(orders)).mean(axis=0)


def _foretold(
    model: Perceiver, inputs: Batch, masks: Any, name: str, hidden: Bool[Array, "b n"], key: jax.Array | None = None
) -> Float[Array, "b n v"]:
    """Logits of all pixels, from those that are not hidden."""
    whole = jnp.asarray(inputs[name], jnp.int32)
    shown = jnp.where(hidden.reshape(whole.shape), UNKNOWN, whole)
    return _logits(model, {**inputs, name: shown}, masks, name, key)


def _logits(model: Perceiver, inputs: Batch, masks: Any, name: str, key: jax.Array | None = None) -> Array:
    logits = model(inputs, masks, [name], key=key)[name]
    return logits.reshape(len(logits), -1, logits.shape[-1])


def _hidden(shape: tuple[int, ...], known: Float[Array, "b"], key: jax.Array) -> Bool[Array, "b n"]:
    """All but so many of each row, at random."""
    return _ranks(jax.random.uniform(key, shape)) >= known[:, None]


def _ranks(values: Float[Array, "b n"]) -> Int[Array, "b n"]:
    """The place of each value among those of its row, from the smallest."""
    return values.argsort(axis=1).argsort(axis=1)
