"""Mask tokens, query masks, shared trunks and pooled answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.saving import weights, with_weights
from tests.models import filled


def built(**changes):
    given = {
        "inputs": {"a": p.Vectors(3, 4), "b": p.Vectors(2, 6)},
        "encoder": p.Encoder(3, 8, 1, latent=p.Block(heads=2)),
        "outputs": {"x": p.Output(p.Dense(2), p.Slots(4, width=5), p.Block(residual=False))},
    }
    config = p.PerceiverConfig(**given | changes)
    return filled(lambda rngs: p.Perceiver(config, rngs))


RNG = np.random.default_rng(0)
INPUTS = {"a": RNG.normal(size=(2, 3, 4)).astype(np.float32), "b": RNG.normal(size=(2, 2, 6)).astype(np.float32)}


def test_a_modality_that_is_always_masked_does_not_matter_but_its_token_does():
    model = built(mask_rates={"b": 1.0})
    answer = model(INPUTS)["x"]
    np.testing.assert_array_equal(model({"a": INPUTS["a"]})["x"], answer)
    np.testing.assert_array_equal(model({**INPUTS, "b": INPUTS["b"] * 7})["x"], answer)
    graph, state = nnx.split(model)
    gradient = jax.grad(lambda s: (nnx.merge(graph, s)(INPUTS)["x"] ** 2).sum())(state)
    assert np.abs(weights(nnx.merge(graph, gradient))["join.masks.b"]).max() > 0


def test_a_rate_between_masks_tokens_in_training_only():
    model = built(mask_rates={"b": 0.5})
    plain = with_weights(
        p.PerceiverConfig(model.config.inputs, model.config.encoder, model.config.outputs),
        {name: value for name, value in weights(model).items() if not name.startswith("join.masks")},
        "plain",
    )
    np.testing.assert_array_equal(model(INPUTS)["x"], plain(INPUTS)["x"])
    trained = [np.asarray(model(INPUTS, key=jax.random.key(i))["x"]) for i in range(4)]
    assert len({array.tobytes() for array in trained}) > 1


@pytest.mark.parametrize("rates", [{"c": 0.5}, {"a": 1.5}])
def test_rates_that_cannot_be_are_refused(rates):
    with pytest.raises(p.ConfigError, match="mask_rates"):
        built(mask_rates=rates)


def test_a_query_that_looks_at_nothing_gets_the_same_whatever_the_input():
    model = built()
    looking = np.array([[True, False, True, False]] * 2)
    first = np.asarray(model(INPUTS, looking={"x": looking})["x"])
    second = np.asarray(model({name: -raw for name, raw in INPUTS.items()}, looking={"x": looking})["x"])
    np.testing.assert_array_equal(first[~looking], second[~looking])
    np.testing.assert_array_equal(first[looking], np.asarray(model(INPUTS)["x"])[looking])
    with pytest.raises(p.InputError, match=r"outputs\['x'\].*bool mask \(2, 4\)"):
        model(INPUTS, looking={"x": looking[:, :3]})
    with pytest.raises(p.InputError, match="no such output"):
        model(INPUTS, looking={"y": looking})


def test_outputs_of_one_trunk_share_its_weights_and_decode_in_chunks():
    outputs = {
        "x": p.Output(p.Dense(2), p.Slots(5, width=4), trunk="t", chunk=2),
        "y": p.Output(p.Classes(3), p.Slots(1, width=6), trunk="t"),
    }
    model = built(outputs=outputs, trunks={"t": p.Trunk(6, p.Block(residual=False), project=7)})
    names = set(weights(model))
    assert {"trunks.t.cross.attention.query.kernel", "trunks.t.project.kernel", "decoders.x.padding"} <= names
    assert "decoders.y.padding" not in names
    assert not [name for name in names if name.startswith("decoders.x.cross")]
    whole = with_weights(
        p.PerceiverConfig(
            model.config.inputs,
            model.config.encoder,
            {"x": p.Output(p.Dense(2), p.Slots(5, width=4), trunk="t"), "y": outputs["y"]},
            trunks=model.config.trunks,
        ),
        weights(model),
        "whole",
    )
    looking = {"x": np.array([[True, False, True, True, False]] * 2)}
    for given in ({}, looking):
        chunked, once = model(INPUTS, looking=given), whole(INPUTS, looking=given)
        assert chunked["x"].shape == (2, 5, 2)
        assert chunked["y"].shape == (2, 3)
        np.testing.assert_allclose(chunked["x"], once["x"], atol=1e-5)


def test_trunks_that_do_not_fit_are_refused():
    wide = {"x": p.Output(p.Dense(2), p.Slots(5, width=9), trunk="t")}
    with pytest.raises(p.ConfigError, match="9 channels do not fit"):
        built(outputs=wide, trunks={"t": p.Trunk(6)})
    with pytest.raises(p.ConfigError, match="no trunk 't'"):
        built(outputs=wide)
    with pytest.raises(p.ConfigError, match="leave `cross` out"):
        p.Output(p.Dense(2), p.Slots(5), p.Block(heads=2), trunk="t")


def test_a_pooled_answer_comes_from_the_mean_of_the_latents():
    model = built(outputs={"x": p.Pooled(p.Classes(3))})
    latents = model.encode(INPUTS)
    expected = model.decoders["x"].head.linear(latents.values.mean(axis=1))
    np.testing.assert_allclose(model(INPUTS)["x"], expected, atol=1e-5)
    with pytest.raises(p.InputError, match="expected no query"):
        model(INPUTS, queries={"x": jnp.arange(2)})


def test_queries_may_hold_the_inputs_own_values():
    image = p.Image((4, 6, 3), position=p.Fourier(2))
    asked = p.WithInput("image", 3, p.Grid((4, 6), p.Fourier(1)))
    config = p.PerceiverConfig({"image": image}, p.Encoder(2, 8, 1), {"x": p.Output(p.Dense(1), asked)})
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    pixels = RNG.random((2, 4, 6, 3)).astype(np.float32)
    latents = model.encode({"image": pixels})
    queries = model.decoders["x"].ask(2, None, latents.tokens)
    np.testing.assert_array_equal(queries.values[..., :3], pixels.reshape(2, 24, 3))
    assert model.decode(latents)["x"].shape == (2, 4, 6, 1)
    with pytest.raises(p.InputError, match="expected 24 tokens"):
        model({"image": pixels[:, :2]})


def test_answers_from_the_inputs_own_tokens_may_take_their_grid():
    frames = p.FramePair((4, 5, 3), position=p.Fourier(1))
    flow = p.Output(p.Flow(), p.FromTokens("frames", cells=(4, 5)), p.Block(residual=False))
    config = p.PerceiverConfig({"frames": frames}, p.Encoder(2, 8, 1), {"flow": flow})
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    pair = RNG.integers(0, 256, (1, 2, 4, 5, 3), dtype=np.uint8)
    assert model({"frames": pair})["flow"].shape == (1, 4, 5, 2)
    assert model({"frames": pair}, queries={"flow": jnp.array([3, 4])})["flow"].shape == (1, 2, 2)
