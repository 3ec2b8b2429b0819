"""Mask tokens, query masks, shared trunks and pooled answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.join import Join
from perceiver.saving import weights, with_weights
from perceiver.tokens import Tokens
from tests.models import filled


def built(**changes):
    given = {
        "inputs": {"a": p.Vectors(3, 4), "b": p.Vectors(2, 6)},
        "encoder": p.Encoder(3, 8, 1, latent=p.Block(heads=2)),
        "outputs": {"x": p.Output(p.Dense(2), p.Slots(4, width=5), p.Block(residual=False))},
    }
    config = p.PerceiverConfig(**given | changes)
    return filled(lambda rngs: p.Perceiver(config, rngs))


@nnx.jit
def answered(model, inputs, looking=None, key=None):
    return model(inputs, looking=looking, key=key)


RNG = np.random.default_rng(0)
INPUTS = {"a": RNG.normal(size=(2, 3, 4)).astype(np.float32), "b": RNG.normal(size=(2, 2, 6)).astype(np.float32)}


def test_a_modality_that_is_always_masked_does_not_matter_but_its_token_does():
    model = built(mask_rates={"b": 1.0})
    answer = answered(model, INPUTS)["x"]
    np.testing.assert_array_equal(answered(model, {"a": INPUTS["a"]})["x"], answer)
    np.testing.assert_array_equal(answered(model, {**INPUTS, "b": INPUTS["b"] * 7})["x"], answer)
    graph, state = nnx.split(model)
    gradient = jax.jit(jax.grad(lambda s: (nnx.merge(graph, s)(INPUTS)["x"] ** 2).sum()))(state)
    assert np.abs(weights(nnx.merge(graph, gradient))["join.masks.b"]).max() > 0


def test_a_rate_between_masks_tokens_in_training_only():
    model = built(mask_rates={"b": 0.5})
    plain = with_weights(
        p.PerceiverConfig(model.config.inputs, model.config.encoder, model.config.outputs),
        {name: value for name, value in weights(model).items() if not name.startswith("join.masks")},
        "plain",
    )
    np.testing.assert_array_equal(answered(model, INPUTS)["x"], answered(plain, INPUTS)["x"])
    trained = [np.asarray(answered(model, INPUTS, key=jax.random.key(i))["x"]) for i in range(4)]
    assert len({array.tobytes() for array in trained}) > 1


@pytest.mark.parametrize("rates", [{"c": 0.5}, {"a": 1.5}])
def test_rates_that_cannot_be_are_refused(rates):
    with pytest.raises(p.ConfigError, match="mask_rates"):
        built(mask_rates=rates)


def test_a_query_that_looks_at_nothing_gets_the_same_whatever_the_input():
    model = built()
    looking = np.array([[True, False, True, False]] * 2)
    first = np.asarray(answered(model, INPUTS, {"x": looking})["x"])
    second = np.asarray(answered(model, {name: -raw for name, raw in INPUTS.items()}, {"x": looking})["x"])
    np.testing.assert_array_equal(first[~looking], second[~looking])
    everyone = np.asarray(answered(model, INPUTS, {"x": np.ones_like(looking)})["x"])
    np.testing.assert_array_equal(first[looking], everyone[looking])
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
        chunked, once = answered(model, INPUTS, given), answered(whole, INPUTS, given)
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
    latents = nnx.jit(lambda m: m.encode(INPUTS).values)(model)
    expected = model.decoders["x"].head.linear(latents.mean(axis=1))
    np.testing.assert_allclose(answered(model, INPUTS)["x"], expected, atol=1e-5)
    with pytest.raises(p.InputError, match="expected no query"):
        model(INPUTS, queries={"x": jnp.arange(2)})


def test_queries_may_hold_the_inputs_own_values():
    image = p.Image((4, 6, 3), position=p.Fourier(2))
    asked = p.WithInput("image", 3, p.Grid((4, 6), p.Fourier(1)))
    config = p.PerceiverConfig({"image": image}, p.Encoder(2, 8, 1), {"x": p.Output(p.Dense(1), asked)})
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    pixels = RNG.random((2, 4, 6, 3)).astype(np.float32)
    queries = nnx.jit(lambda m: m.decoders["x"].ask(2, None, m.encode({"image": pixels}).tokens))(model)
    np.testing.assert_array_equal(queries.values[..., :3], pixels.reshape(2, 24, 3))
    assert jax.eval_shape(lambda: model({"image": pixels}))["x"].shape == (2, 4, 6, 1)
    with pytest.raises(p.InputError, match="expected 24 tokens"):
        jax.eval_shape(lambda: model({"image": pixels[:, :2]}))


def test_answers_from_the_inputs_own_tokens_may_take_their_grid():
    frames = p.FramePair((4, 5, 3), position=p.Fourier(1))
    flow = p.Output(p.Flow(), p.FromTokens("frames", cells=(4, 5)), p.Block(residual=False))
    config = p.PerceiverConfig({"frames": frames}, p.Encoder(2, 8, 1), {"flow": flow})
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    pair = RNG.integers(0, 256, (1, 2, 4, 5, 3), dtype=np.uint8)
    ask = nnx.jit(lambda m, queries: m({"frames": pair}, queries=queries)["flow"])
    whole = ask(model, None)
    assert whole.shape == (1, 4, 5, 2)
    chosen = ask(model, {"flow": jnp.array([3, 4])})
    np.testing.assert_allclose(chosen, np.asarray(whole).reshape(1, 20, 2)[:, 3:5], atol=1e-6)


def test_a_rate_replaces_its_share_of_whole_tokens():
    join = filled(lambda rngs: Join({"a": 2, "b": 3}, 4, {"a": 0.25}, dtype=jnp.dtype("float32"), rngs=rngs))
    tokens = {"a": Tokens(jnp.ones((8, 500, 2))), "b": Tokens(jnp.ones((8, 1, 3)))}
    joined = np.asarray(join(tokens, key=jax.random.key(0)).values)[:, :500]
    replaced = (joined == np.asarray(join.masks["a"][...])).all(axis=-1)
    assert 0.22 < replaced.mean() < 0.28
    assert len({row.tobytes() for row in replaced}) == 8
    np.testing.assert_array_equal(joined[~replaced], np.asarray(join(tokens).values)[:, :500][~replaced])


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_a_mask_token_learns_and_keeps_nan_of_what_it_hides_out(rate):
    join = filled(lambda rngs: Join({"a": 2, "b": 3}, 4, {"b": rate}, dtype=jnp.dtype("float32"), rngs=rngs))
    graph, state = nnx.split(join)
    values = jnp.full((2, 8, 3), jnp.nan if rate == 1.0 else 1.0)

    @jax.jit
    def gradient(state, values):
        def loss(state, values):
            return (nnx.merge(graph, state)({"b": Tokens(values)}, key=jax.random.key(1)).values ** 2).sum()

        return jax.grad(loss, (0, 1))(state, values)

    found, of_values = gradient(state, values)
    hidden = (of_values == 0).all(axis=-1)
    np.testing.assert_allclose(found.masks["b"][...], 2 * hidden.sum() * join.masks["b"][...], rtol=1e-5)
    np.testing.assert_allclose(found.padding["b"][...], 2 * (~hidden).sum() * join.padding["b"][...], rtol=1e-5)
    assert hidden.all() if rate == 1.0 else 0 < hidden.sum() < 16


def test_attention_shows_a_modality_that_is_always_masked():
    model = built(mask_rates={"b": 1.0})
    given, left_out = model.attention(INPUTS), model.attention({"a": INPUTS["a"]})
    assert left_out.keys() == given.keys()
    for name, weights_of in given.items():
        np.testing.assert_array_equal(left_out[name], weights_of)


def test_only_adapters_that_take_a_key_are_given_one():
    image = p.Image((8, 8, 1), stem=p.ConvStem(2), position=p.Fourier(1))
    model = built(inputs={"a": p.Vectors(3, 4), "image": image}, outputs={})
    pixels = RNG.random((2, 8, 8, 1)).astype(np.float32)
    graph, state = nnx.split(model)

    @jax.jit
    def tokens(state, key):
        return nnx.merge(graph, state).tokenise({"a": INPUTS["a"], "image": pixels}, key=key)

    still, trained = tokens(state, None), tokens(state, jax.random.key(0))
    np.testing.assert_array_equal(still["a"].values, trained["a"].values)
    assert not np.allclose(still["image"].values, trained["image"].values)


@pytest.mark.parametrize("name", ["a.b", "", "items"])
def test_names_of_trunks_that_would_clash_are_refused(name):
    with pytest.raises(p.ConfigError, match="cannot name"):
        built(trunks={name: p.Trunk(6)})


def test_a_query_mask_of_an_output_that_is_not_asked_is_named_as_one():
    model = built(outputs={"x": p.Classes(2), "y": p.Classes(2)})
    with pytest.raises(p.InputError, match=r"looking\['x'\]: this output is not among the asked: y"):
        model(INPUTS, outputs=["y"], looking={"x": np.ones((2, 1), bool)})


def test_masks_trunks_and_pooled_answers_are_saved(tmp_path):
    outputs = {
        "x": p.Output(p.Dense(2), p.Slots(5, width=4), trunk="t"),
        "y": p.Pooled(p.Classes(3, ("a", "b", "c"))),
    }
    model = built(outputs=outputs, trunks={"t": p.Trunk(6, project=7)}, mask_rates={"a": 0.5, "b": 1.0})
    again = p.from_pretrained(model.save(tmp_path / "model"))
    assert again.config == model.config
    assert weights(again).keys() == weights(model).keys()
    for name, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[name], value)
