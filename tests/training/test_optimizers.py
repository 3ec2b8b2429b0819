import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from perceiver import Block, Classes, Encoder, Image, PerceiverConfig
from perceiver.saving import flatten
from perceiver.training.optimizers import _around, adamw, decayed, flat_cosine, lamb, warmup_cosine
from tests.models import noisy


def parameters():
    config = PerceiverConfig(
        {"image": Image((2, 2, 1))}, Encoder(2, 8, 2, latent=Block(heads=2)), {"label": Classes(2)}
    )
    return nnx.state(noisy(config), nnx.Param)


def test_schedules_start_peak_and_end_where_they_say():
    cosine = warmup_cosine(1.0, 100, 10)
    assert [float(cosine(s)) for s in (0, 5, 10, 100)] == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=1e-6)
    flat = flat_cosine(1.0, 100, 50)
    assert [float(flat(s)) for s in (0, 49, 75, 100)] == pytest.approx([1.0, 1.0, 0.5, 0.0], abs=1e-6)


def test_weight_decay_spares_biases_norms_latents_and_tables():
    chosen = flatten(decayed(parameters()))
    assert {name for name, yes in chosen.items() if yes} == {name for name in chosen if name.endswith(".kernel")}
    assert any(chosen.values())


@pytest.mark.parametrize("make", [adamw, lamb])
def test_decay_shrinks_kernels_only(make):
    state = parameters()
    optimizer = make(0.1, weight_decay=0.5)
    still = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    updates, _ = jax.jit(lambda still, state: optimizer.update(still, optimizer.init(state), state))(still, state)
    for name, update in flatten(updates).items():
        assert bool(jnp.any(update != 0)) == name.endswith(".kernel"), name


def test_accumulation_averages_gradients_and_updates_every_second_time():
    state = {"kernel": jnp.ones((2, 2))}
    single, double = adamw(0.1, clip=1e9), adamw(0.1, clip=1e9, accumulate=2)
    memory = double.init(state)
    small, large = ({"kernel": jnp.full((2, 2), g)} for g in (1.0, 3.0))
    first, memory = double.update(small, memory, state)
    second, memory = double.update(large, memory, state)
    assert not np.any(first["kernel"])
    expected, _ = single.update({"kernel": jnp.full((2, 2), 2.0)}, single.init(state), state)
    assert np.allclose(second["kernel"], expected["kernel"])


@pytest.mark.parametrize("limit", [1.0, 1e-8])  # at the smaller one Adam's epsilon shows the size of a gradient
def test_gradients_are_clipped_to_the_global_norm(limit):
    state = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    huge = jax.tree.map(lambda x: jnp.full(x.shape, 1e6), state)
    clipped, _ = optax.clip_by_global_norm(limit).update(huge, optax.EmptyState())
    mine = adamw(1.0, weight_decay=0.0, clip=limit)
    direct = adamw(1.0, weight_decay=0.0, clip=1e12)
    got, _ = mine.update(huge, mine.init(state), state)
    wanted, _ = direct.update(clipped, direct.init(state), state)
    assert all(np.allclose(got[name], wanted[name]) for name in state)


@pytest.mark.parametrize("size", [0.0, 0.01, 1e6])
@pytest.mark.parametrize("limit", [1.0, 10.0, math.inf])
def test_clipping_is_that_of_optax(size, limit):
    state = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    given = jax.tree.map(lambda x: size * (1.0 + jnp.arange(x.size, dtype=jnp.float32)), state)
    seen = []
    keep = optax.stateless(lambda updates, _: seen.append(updates) or updates)
    optimizer = _around(keep, limit, 1)
    optimizer.update(given, optimizer.init(state), state)
    wanted, _ = optax.clip_by_global_norm(limit).update(given, optax.EmptyState())
    assert all(np.allclose(seen[0][name], wanted[name], rtol=1e-6) for name in state)
