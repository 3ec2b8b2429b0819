import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from perceiver import Block, Classes, Encoder, Image, PerceiverConfig
from perceiver.saving import flatten
from perceiver.training.optimizers import _around, adamw, decayed, flat_cosine, lamb, muon, warmup_cosine
from tests.models import noisy


def parameters():
    config = PerceiverConfig(
        {"image": Image((2, 2, 1))}, Encoder(2, 8, 2, latent=Block(heads=2)), {"label": Classes(2)}
    )
    return nnx.state(noisy(config), nnx.Param)


def test_schedules_start_peak_and_end_where_they_say():
    cosine = warmup_cosine(1.0, 100, 10)
    assert [float(cosine(s)) for s in (0, 5, 10, 100)] == pytest.approx([0.0, 0.5, 1.0, 0.0], abs=1e-6)
    assert [float(warmup_cosine(1.0, 100)(s)) for s in (0, 5, 10, 57)] == [float(cosine(s)) for s in (0, 5, 10, 57)]
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


def test_muon_turns_linear_maps_by_orthogonal_updates_and_leaves_the_rest_to_adam():
    state = parameters()
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), state)
    both = {}
    adam = _around(optax.adamw(0.02, b2=0.98, weight_decay=0.0, nesterov=True), 1.0, 1)
    for name, optimizer in {"muon": muon(0.1, 0.02, weight_decay=0.0), "adam": adam}.items():
        updates, _ = jax.jit(lambda g, s, o=optimizer: o.update(g, o.init(s), s))(gradients, state)
        both[name] = flatten(updates)
    stacked = 0
    for name, update in both["muon"].items():
        if not name.endswith(".kernel") or ".head." in name:
            np.testing.assert_allclose(update, both["adam"][name], atol=1e-6)
            continue
        stacked += update.ndim == 3
        for matrix in np.asarray(update).reshape(-1, *update.shape[-2:]):
            scale = 0.1 * 0.2 * math.sqrt(max(matrix.shape))
            values = np.linalg.svd(matrix / scale, compute_uv=False)
            assert 0.6 < np.median(values) < 1.3, name  # five iterations leave the least where they are
            assert values.max() < 1.3, name
    assert stacked


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
