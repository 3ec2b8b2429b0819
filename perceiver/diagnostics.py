"""What goes on in the bottleneck: how much of it is used, where it looks, and which modality the answers hang on."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from perceiver.model import Perceiver
from perceiver.typing import Array, Float


def diagnose(model: Perceiver, inputs: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Figures about a batch of inputs; compiled once per shape.

    - latent_rank/within: effective rank (Roy & Vetterli, 2007: the exponential of the entropy of the singular values)
      of a sample's latents around their mean, averaged over samples. Near 0 all latents say the same.
    - latent_rank/across: that of the samples' mean latents. Near 0 all samples look the same.
    - attention_share/NAME: how much of their first look the latents give to a modality; all add up to 1.
    - attention_entropy/NAME: how evenly they look within it, over its real tokens: 0 at a single one, 1 at all.
    - influence/NAME: how far the answers move when a modality comes from another sample of the batch, as the norm of
      the difference relative to that of the answers; /OUTPUT is added where there are several. An answer that ignores a
      modality gives 0. Needs two samples. Answers are those that need no query from the caller.
    """
    graph, state = nnx.split(model)
    return {name: float(value) for name, value in _diagnose(graph, state, dict(inputs), dict(masks or {})).items()}


@functools.partial(jax.jit, static_argnames=("graph",))
def _diagnose(graph: nnx.GraphDef, state: nnx.State, inputs: Any, masks: Any) -> dict[str, Array]:
    model = nnx.merge(graph, state)
    latents = model.encode(inputs, masks)
    answers = model.decode(latents)
    figures = _ranks(latents.values) | _looks(model, inputs, masks)
    if len(latents.values) < 2:
        return figures
    for name in inputs:
        others = {each: _rolled(raw) if each == name else raw for each, raw in inputs.items()}
        hidden = {each: _rolled(mask) if each == name else mask for each, mask in masks.items()}
        for output, moved in model(others, hidden, tuple(answers)).items():
            label = f"influence/{name}" if len(answers) == 1 else f"influence/{name}/{output}"
            size = jnp.maximum(jnp.linalg.norm(answers[output]), jnp.finfo(jnp.float32).tiny)
            figures[label] = jnp.linalg.norm(moved - answers[output]) / size
    return figures


def _rolled(tree: Any) -> Any:
    """Each sample's values from the one before it."""
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, axis=0), tree)


def _ranks(latents: Float[Array, "b n c"]) -> dict[str, Array]:
    latents = latents.astype(jnp.float32)
    within = jax.vmap(effective_rank)(latents).mean()
    return {"latent_rank/within": within, "latent_rank/across": effective_rank(latents.mean(axis=1))}


def effective_rank(rows: Float[Array, "n c"]) -> Float[Array, ""]:
    """Of the rows around their mean, at most min(n - 1, c); 0 where all rows are the same."""
    values = jnp.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    total = values.sum()
    shares = values / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    same = total <= jnp.finfo(jnp.float32).eps * jnp.abs(rows).sum()
    return jnp.where(same, 0.0, jnp.exp(_entropy(shares)))


def _entropy(shares: Float[Array, "... n"]) -> Float[Array, "..."]:
    return -jax.scipy.special.xlogy(shares, shares).sum(axis=-1)


def _looks(model: Perceiver, inputs: Any, masks: Any) -> dict[str, Array]:
    """Share and entropy of the latents' first look, a sample at a time: weights are as large as the input is long."""

    def one(sample: Any) -> dict[str, Array]:
        inputs, masks = jax.tree.map(lambda leaf: leaf[None], sample)
        tokens = model.tokenise(inputs, masks)
        figures = {}
        for name, weights in model.attention(inputs, masks).items():
            weights, mask = weights[0].astype(jnp.float32), tokens[name].mask
            real = weights.shape[-1] if mask is None else mask.sum()
            share = weights.sum(axis=-1)
            figures[f"attention_share/{name}"] = share.mean()
            evenly = jnp.log(jnp.maximum(real, 2).astype(jnp.float32))
            spread = _entropy(weights / jnp.maximum(share, jnp.finfo(jnp.float32).tiny)[..., None]) / evenly
            figures[f"attention_entropy/{name}"] = jnp.where(real > 0, spread.mean(), jnp.nan)
        return figures

    given = jax.tree.map(jnp.asarray, (inputs, masks))
    return {name: jnp.nanmean(values) for name, values in jax.lax.map(one, given).items()}
