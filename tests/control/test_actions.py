import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import perceiver as p
from perceiver.control.actions import act, action_head, action_objective
from perceiver.errors import ConfigError
from perceiver.training.optimizers import adamw
from tests.models import close, noisy

SCALE = {"mean": (1.0, -1.0), "std": (2.0, 0.5)}
HEADS = {
    "numbers": p.Chunk(4, 2, **SCALE),
    "bins": p.BinnedChunk(4, 2, low=(-4.0, -3.0), high=(6.0, 1.0), bins=8),
    "flow": p.FlowChunk(4, 2, steps=8, **SCALE),
}


def config(head, channels=16):
    encoder = p.Encoder(2, channels, 1, latent=p.Block(heads=2))
    return p.PerceiverConfig({"state": p.State(3, history=2)}, encoder, {"action": head})


def batch(size=6, seed=0):
    rng = np.random.default_rng(seed)
    pads = np.arange(4) >= rng.integers(1, 5, (size, 1))
    pads[0] = [False, False, True, True]
    actions = rng.normal(size=(size, 4, 2)) * SCALE["std"] + SCALE["mean"]
    return {
        "inputs": {"state": rng.normal(size=(size, 2, 3)).astype(np.float32)},
        "targets": {"action": actions.astype(np.float32), "action_is_pad": pads},
    }


@functools.cache
def compiled(name):
    model = noisy(config(HEADS[name]))
    graph, state = nnx.split(model)

    def loss(state, batch):
        return action_objective()(nnx.merge(graph, state), batch, None)[0]

    choose = jax.jit(lambda state, inputs: act(nnx.merge(graph, state), inputs))
    return state, jax.jit(jax.value_and_grad(loss)), choose


@pytest.mark.parametrize("name", HEADS)
def test_what_lies_behind_the_end_of_an_episode_is_not_learned(name):
    state, loss, _ = compiled(name)
    given = batch()
    before = loss(state, given)
    spoilt = batch()
    spoilt["targets"]["action"][given["targets"]["action_is_pad"]] = np.nan
    after = loss(state, spoilt)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    shown = batch()
    shown["targets"]["action_is_pad"][:] = False
    assert abs(loss(state, shown)[0] - before[0]) > 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_a_chunk_comes_in_the_actions_own_units(name):
    state, _, choose = compiled(name)
    chosen = np.asarray(choose(state, batch()["inputs"]))
    assert (chosen.shape, chosen.dtype) == ((6, 4, 2), np.float32)
    np.testing.assert_array_equal(chosen, choose(state, batch()["inputs"]))
    if name == "bins":
        assert set(np.unique(chosen[..., 0])) <= {-4 + 1.25 * (i + 0.5) for i in range(8)}


def test_the_losses_are_what_they_say():
    state, loss, choose = compiled("numbers")
    given = batch()
    chosen = np.asarray(choose(state, given["inputs"]))
    each = (np.abs(chosen - given["targets"]["action"]) / SCALE["std"]).mean(axis=-1)
    close(loss(state, given)[0], each[~given["targets"]["action_is_pad"]].mean(), 1e-5)


def test_a_flow_of_no_velocity_stays_at_the_noise_and_another_key_draws_another_chunk():
    model = noisy(config(p.FlowChunk(4, 2, steps=3, **SCALE)))
    run = nnx.jit(lambda model, key: act(model, batch()["inputs"], key=key))
    drawn = [np.asarray(run(model, jax.random.key(i))) for i in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.1
    head = model.decoders.action.head.linear
    head.kernel[...], head.bias[...] = jnp.zeros_like(head.kernel), jnp.zeros_like(head.bias)
    noise = np.asarray(jax.random.normal(jax.random.key(0), (6, 4, 2)))
    close(run(model, jax.random.key(0)), noise * SCALE["std"] + SCALE["mean"])


def test_a_flow_without_temperature_starts_in_the_middle_of_its_noise():
    model = noisy(config(p.FlowChunk(4, 2, steps=3, temperature=0.0, **SCALE)))
    run = nnx.jit(lambda model, key: act(model, batch()["inputs"], key=key))
    close(run(model, jax.random.key(0)), run(model, jax.random.key(1)))
    head = model.decoders.action.head.linear
    head.kernel[...], head.bias[...] = jnp.zeros_like(head.kernel), jnp.zeros_like(head.bias)
    close(run(model, jax.random.key(0)), np.broadcast_to(np.float32(SCALE["mean"]), (6, 4, 2)))


@pytest.mark.slow
def test_a_flow_learns_two_ways_and_takes_one_of_them():
    """Whole chunks go left or right: steps that chose alone would contradict each other."""
    head = p.FlowChunk(4, 1, steps=10, mixing=p.Block(heads=2))
    model = config(head, 32).build(0)
    graph, parameters = nnx.split(model)
    optimizer = adamw(1e-2)
    inputs = {"state": np.zeros((32, 2, 3), np.float32)}

    def loss(parameters, key):
        side, noise = jax.random.split(key)
        actions = jnp.sign(jax.random.normal(side, (32, 1, 1))) * jnp.ones((1, 4, 1))
        given = {"inputs": inputs, "targets": {"action": actions}}
        return action_objective()(nnx.merge(graph, parameters), given, noise)[0]

    @jax.jit
    def train(parameters):
        def step(carry, key):
            parameters, state = carry
            updates, state = optimizer.update(jax.grad(loss)(parameters, key), state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        keys = jax.random.split(jax.random.key(1), 300)
        return jax.lax.scan(step, (parameters, optimizer.init(parameters)), keys)[0][0]

    trained = nnx.merge(graph, train(nnx.as_pure(parameters)))
    drawn = np.asarray(nnx.jit(lambda m, key: act(m, inputs, key=key))(trained, jax.random.key(7)))[..., 0]
    decided = np.abs(drawn.mean(axis=1))
    assert decided.mean() > 0.55  # 0.38 for steps that choose alone
    assert 0.2 < (drawn.mean(axis=1) > 0).mean() < 0.8


def test_an_output_that_gives_no_actions_is_named():
    wrong = p.PerceiverConfig({"state": p.State(3)}, p.Encoder(2, 8, 1), {"label": p.Classes(2)})
    with pytest.raises(ConfigError, match=r"outputs\['action'\]: no such output; known: label"):
        action_head(wrong, "action")
    with pytest.raises(ConfigError, match=r"outputs\['label'\]: expected Chunk, BinnedChunk or FlowChunk, got Classes"):
        action_head(wrong, "label")
