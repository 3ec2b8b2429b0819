"""What is learned from a chunk of actions, and how one is chosen, for every kind of head.

Actions are in their own units, [b, horizon, dims]. `keep` [b, horizon] is True for steps that were recorded; it is the
opposite of LeRobot's `action_is_pad`, which marks the steps behind the end of an episode.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from perceiver.adapters.base import standardise
from perceiver.attention import split_key
from perceiver.config import suggestion
from perceiver.decoders.actions import ActionHead, BinnedChunk, Chunk, FlowChunk
from perceiver.errors import ConfigError
from perceiver.model import Latents, Perceiver, PerceiverConfig
from perceiver.objectives import absolute_error, cross_entropy, squared_error
from perceiver.pipeline import Batch, Sample, in_batches
from perceiver.typing import Array, Bool, Float

Ask: TypeAlias = Callable[[Array | None], Array]
"""A head's answers to its own queries, or to those at the given places."""


def action_head(config: PerceiverConfig, name: str) -> ActionHead:
    """The head of the output that gives the actions.

    Raises:
        ConfigError: no such output, or one that gives no actions.
    """
    if name not in config.outputs:
        raise ConfigError(f"outputs[{name!r}]: no such output; {suggestion(name, config.outputs)}")
    head = config.outputs[name].head
    if not isinstance(head, ActionHead):
        raise ConfigError(f"outputs[{name!r}]: expected Chunk, BinnedChunk or FlowChunk, got {type(head).__name__}")
    return head


def action_loss(
    head: ActionHead,
    ask: Ask,
    actions: Float[Array, "b t d"],
    keep: Bool[Array, "b t"] | None = None,
    key: jax.Array | None = None,
) -> Float[Array, ""]:
    """What is minimised: the absolute error in deviations (Chunk), nats (BinnedChunk), or the squared error of the
    velocity (FlowChunk, at a random time and noise for each sample).

    key: randomness; None takes the same noise and times at every call, so that figures can be compared.
    """
    if keep is not None:  # what stands behind the end may be anything
        actions = jnp.where(keep[..., None], actions, 0.0)
    match head:
        case Chunk():
            answer, wanted = (standardise(each, head.mean, head.std) for each in (ask(None), actions))
            return absolute_error(answer, wanted, keep)
        case BinnedChunk():
            each = None if keep is None else jnp.broadcast_to(keep[..., None], actions.shape)
            return cross_entropy(ask(None), head.bins_of(actions), each)
        case FlowChunk():
            wanted = standardise(actions, head.mean, head.std)
            noise_key, time_key = jax.random.split(jax.random.key(0) if key is None else key)
            noise = jax.random.normal(noise_key, wanted.shape)
            time = jax.random.uniform(time_key, (wanted.shape[0], 1, 1))
            noisy = (1.0 - time) * noise + time * wanted
            return squared_error(ask(_at(noisy, time)), wanted - noise, keep)
    raise ConfigError(f"expected Chunk, BinnedChunk or FlowChunk, got {type(head).__name__}")


def choose_actions(head: ActionHead, ask: Ask, batch: int, key: jax.Array | None = None) -> Float[Array, "b t d"]:
    """The actions to take, float32 [b, horizon, dims]: the answer itself, the middle of the likeliest bins, or the end
    of the flow from noise.

    key: of the noise; None takes the same for every sample of every call.
    """
    match head:
        case Chunk():
            return ask(None)
        case BinnedChunk():
            return head.centres(ask(None).argmax(axis=-1))
        case FlowChunk():
            shape = (batch, head.horizon, head.dims)
            noise = jnp.broadcast_to(_noise(*shape[1:]), shape) if key is None else jax.random.normal(key, shape)

            def follow(noisy: Array, time: Array) -> tuple[Array, None]:
                return noisy + ask(_at(noisy, time)) / head.steps, None

            end, _ = jax.lax.scan(follow, head.temperature * noise, jnp.arange(head.steps) / head.steps)
            return end if not head.mean else end * jnp.asarray(head.std) + jnp.asarray(head.mean)
    raise ConfigError(f"expected Chunk, BinnedChunk or FlowChunk, got {type(head).__name__}")


def asker(model: Perceiver, latents: Latents, name: str, key: jax.Array | None = None) -> Ask:
    """Questions to the output `name` about an encoded batch. key: of dropout."""

    def ask(at: Array | None) -> Array:
        return model.decode(latents, [name], None if at is None else {name: at}, key=key)[name]

    return ask


def act(
    model: Perceiver,
    inputs: Mapping[str, Any],
    masks: Mapping[str, Array] | None = None,
    name: str = "action",
    *,
    key: jax.Array | None = None,
) -> Float[Array, "b t d"]:
    """A batch of inputs to actions, float32 [b, horizon, dims]: encoded once, whatever the head then asks."""
    latents = model.encode(inputs, masks)
    return choose_actions(action_head(model.config, name), asker(model, latents, name), latents.values.shape[0], key)


@functools.partial(jax.jit, static_argnames=("graph", "name"))
def _act(graph: nnx.GraphDef, state: nnx.State, inputs, masks, name: str) -> Array:
    return act(nnx.merge(graph, state), inputs, masks, name)


def act_all(
    model: Perceiver, samples: Sequence[Sample], batch: int, name: str = "action"
) -> Float[np.ndarray, "n t d"]:
    """What `act` gives without a key for any number of samples {"inputs": …, "masks": …}; compiled, on the host."""
    graph, state = nnx.split(model)
    parts = ((_act(graph, state, given["inputs"], given["masks"], name), n) for given, n in in_batches(samples, batch))
    return np.concatenate([jax.device_get(actions)[:count] for actions, count in parts])


def action_objective(name: str = "action") -> Callable[[Perceiver, Batch, jax.Array | None], tuple[Array, dict]]:
    """An experiment's objective.

    Batches carry targets[name] [b, horizon, dims] in the actions' units, and may carry targets[name + "_is_pad"], bool
    [b, horizon], True for steps that were not recorded.
    """

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
        encoding, decoding, noise = split_key(key, 3)
        latents = model.encode(batch["inputs"], batch.get("masks"), key=encoding)
        padded = batch["targets"].get(f"{name}_is_pad")
        keep = None if padded is None else ~padded
        ask = asker(model, latents, name, decoding)
        loss = action_loss(action_head(model.config, name), ask, batch["targets"][name], keep, noise)
        return loss, {"loss/action": loss}

    return objective


@functools.lru_cache(maxsize=64)
def _noise(horizon: int, dims: int) -> np.ndarray:
    """The noise that is taken without a key: a constant, which exported programs have in them."""
    with jax.ensure_compile_time_eval():
        return np.asarray(jax.random.normal(jax.random.key(0), (horizon, dims)))


def _at(noisy: Float[Array, "b t d"], time: Any) -> Float[Array, "b t d+1"]:
    """See NoisyActions."""
    return jnp.concatenate([noisy, jnp.broadcast_to(jnp.asarray(time, jnp.float32), (*noisy.shape[:2], 1))], axis=-1)
