import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver import saving
from perceiver.encoder import Size
from perceiver.errors import ConfigError
from perceiver.model import Latents, parameter_count
from tests.models import close, filled

BLOCK = p.Block(heads=2, widening=2)
ENCODERS = {
    "Perceiver IO": p.Encoder(5, 8, 3, latent=BLOCK, min_latents=1, min_depth=1),
    "shared towers": p.Encoder(5, 8, 3, latent=BLOCK, towers=(0, 0, 1), min_latents=1, min_depth=1, remat=True),
    "Perceiver 1": p.Encoder(
        5, 8, 2, latent=BLOCK, cross_attends=(0, 1, 1), towers=(0, 0, 0), min_latents=1, min_depth=1
    ),
}
STATE = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)


def config(encoder):
    return p.PerceiverConfig(
        {"state": p.State(3, history=6)},
        encoder,
        {"label": p.Classes(3), "grid": p.Output(p.Dense(1), p.Grid((4,)), chunk=3), "mean": p.Pooled(p.Classes(2))},
    )


def built(encoder):
    return filled(lambda rngs: p.Perceiver(config(encoder), rngs))


@nnx.jit
def masked(model, latents, depth):
    """What the whole model answers when only some of it takes part, as in training but for dropout."""
    size = Size(latents, depth)
    values = model.encoder(model.join(model.tokenise({"state": STATE})), size=size)
    return model.decode(Latents(values, {}, size.shown(*values.shape[:2])))


answers = nnx.jit(lambda model: model({"state": STATE}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_a_reduced_model_computes_what_the_whole_one_trains(name):
    model = built(ENCODERS[name])
    whole = answers(model)
    for latents, depth in ((1, 2), (3, 1)):
        part = p.reduced(model, latents, depth)
        found = answers(part)
        for output, values in masked(model, jnp.asarray(latents), jnp.asarray(depth)).items():
            close(found[output], values, 1e-6)
            assert not np.allclose(found[output], whole[output], atol=1e-4)
        assert parameter_count(part) < parameter_count(model)


def test_training_reaches_every_size_with_one_program_and_evaluation_uses_all():
    encoder = ENCODERS["Perceiver IO"]
    model = built(encoder)
    sizes = jax.vmap(model.encoder.draw)(jax.random.split(jax.random.key(0), 300))
    drawn = {(int(n), int(d)) for n, d in zip(sizes.latents, sizes.depth, strict=True)}
    assert drawn == {(n, d) for n in range(1, 6) for d in range(1, 4)}
    traces = []

    @jax.jit
    def train(state, key):
        traces.append(key)
        return nnx.merge(graph, state)({"state": STATE}, outputs=["label"], key=key)["label"]

    graph, state = nnx.split(model)
    found = {train(state, jax.random.key(seed)).tobytes() for seed in range(40)}
    assert len(traces) == 1
    assert len(found) > 8  # of 15 sizes; there is no dropout
    fixed = dataclasses.replace(encoder, min_latents=None, min_depth=None)
    np.testing.assert_array_equal(answers(built(fixed))["label"], answers(model)["label"])


@pytest.mark.slow
def test_a_training_answer_is_that_of_one_of_the_sizes():
    model = built(ENCODERS["Perceiver IO"])
    every = [
        np.asarray(masked(model, jnp.asarray(n), jnp.asarray(d))["label"]) for n in range(1, 6) for d in range(1, 4)
    ]
    train = nnx.jit(lambda model, key: model({"state": STATE}, outputs=["label"], key=key)["label"])
    for seed in range(5):
        found = np.asarray(train(model, jax.random.key(seed)))
        assert min(np.abs(found - values).max() for values in every) < 1e-5


@pytest.mark.slow
def test_what_takes_no_part_gets_no_gradient():
    graph, state = nnx.split(built(ENCODERS["shared towers"]))

    @jax.jit
    @jax.grad
    def gradient(state):
        return sum((x**2).sum() for x in masked(nnx.merge(graph, state), jnp.asarray(2), jnp.asarray(1)).values())

    found = saving.flatten(gradient(state))
    latents = np.asarray(found["encoder.latents"])
    assert np.abs(latents[:2]).min() > 0
    assert not latents[2:].any()
    layers = np.asarray(found["encoder.towers.0.layers.mlp.widen.kernel"])
    assert layers[0].any()
    assert not layers[1:].any()


def test_without_a_choice_nothing_is_drawn():
    model = built(p.Encoder(5, 8, 3, latent=BLOCK, min_latents=5, min_depth=3))
    assert model.encoder.draw(jax.random.key(0)) == Size()
    assert model.encode({"state": STATE}, key=jax.random.key(0)).mask is None


@pytest.mark.slow
def test_a_reduced_model_is_saved_reduced_again_and_quantised_as_any(tmp_path):
    encoder = dataclasses.replace(ENCODERS["shared towers"], channels=64)
    model = built(encoder)
    part = p.reduced(model, 3, 2)
    assert part.config.encoder == dataclasses.replace(encoder, latents=3, depth=2)
    again = p.from_pretrained(part.save(tmp_path / "model"))
    np.testing.assert_array_equal(answers(again)["label"], answers(part)["label"])
    np.testing.assert_array_equal(answers(p.reduced(part, 1, 1))["label"], answers(p.reduced(model, 1, 1))["label"])
    first = saving.weights(p.quantise(p.reduced(model, 1, 1), p.Weights.INT8))
    second = saving.weights(p.reduced(p.quantise(model, p.Weights.INT8), 1, 1))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_latents": 0}, r"Encoder.min_latents must be in \[1, latents = 5\], got 0"),
        ({"min_latents": 6}, r"Encoder.min_latents must be in \[1, latents = 5\], got 6"),
        ({"min_depth": 4}, r"Encoder.min_depth must be in \[1, depth = 3\], got 4"),
    ],
)
def test_a_range_that_cannot_be_says_why(changes, message):
    with pytest.raises(ConfigError, match=message):
        p.Encoder(5, 8, 3, **changes)


def test_a_size_that_was_not_trained_says_why():
    model = built(p.Encoder(5, 8, 3, latent=BLOCK, min_latents=2))
    with pytest.raises(ConfigError, match="latents: expected 2 to 5, which the model was trained for, got 1"):
        p.reduced(model, latents=1)
    with pytest.raises(ConfigError, match=r"depth: expected 3, got 2; .*Encoder.min_depth is None"):
        p.reduced(model, depth=2)
    assert p.reduced(model, depth=3).config == model.config
    with pytest.raises(ConfigError, match="expected a Perceiver, whose latents and depth are a choice, got a Module"):
        p.reduced(nnx.Module())
