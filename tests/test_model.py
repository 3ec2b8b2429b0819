import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import perceiver as p
from perceiver.errors import InputError
from perceiver.model import Compute, presence_of
from perceiver.tokens import Tokens
from tests.models import close, filled, tiny_batch, tiny_config, tiny_inputs, tiny_model

BATCH = tiny_batch()
NAMES = sorted(BATCH)
ASKED = ("label", "segments", "pixels")
POINTS = np.random.default_rng(2).uniform(-1, 1, (4, 3)).astype(np.float32)
TIMES = np.float32([[0.0], [0.7], [2.0]])


@nnx.jit
def call(model, inputs, masks):
    return model(inputs, masks, ASKED)


@functools.cache
def with_masks():
    """One compiled call with a presence mask for everything."""
    return lambda inputs, present: call(tiny_model(), inputs, {n: jnp.asarray(m) for n, m in present.items()})


def everyone():
    return {name: np.ones(3, bool) for name in NAMES}


def equal(actual, expected):
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name])


def spoilt(raw):
    """Other data of the same shape, with NaN where the dtype has it."""
    if np.issubdtype(raw.dtype, np.floating):
        return np.full_like(raw, np.nan)
    return raw[..., ::-1].copy() if raw.dtype == np.int32 else 255 - raw


def test_every_answer_has_its_shape_in_float32():
    queries = {"field": POINTS, "sample": TIMES}
    model = tiny_model()
    answers = jax.eval_shape(lambda: model(BATCH, queries=queries))
    assert {name: answer.shape for name, answer in answers.items()} == {
        "label": (3, 3),
        "pixels": (3, 4, 6, 2),
        "field": (3, 4, 1),
        "sample": (3, 3, 1),
        "segments": (3, 6, 3),
        "embedding": (3, 4),
        "pose": (3, 2),
        "actions": (3, 3, 2),
        "words": (3, 6, 262),
    }
    assert {answer.dtype for answer in answers.values()} == {jnp.dtype("float32")}


def test_without_asking_everything_that_can_be_answered_is():
    model = tiny_model()
    answers = jax.eval_shape(lambda: model({"state": BATCH["state"]}))
    assert set(answers) == {"label", "pixels", "embedding", "pose", "actions", "words"}


@settings(max_examples=12, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.data())
def test_data_of_an_absent_modality_changes_nothing_at_all(present, data):
    masks = everyone()
    row = data.draw(st.integers(0, 2))
    for name in set(NAMES) - present:
        masks[name][row] = False
    inputs = {n: raw.copy() for n, raw in BATCH.items()}
    for name in set(NAMES) - present:
        inputs[name][row] = spoilt(inputs[name])[row]
    equal(with_masks()(inputs, masks), with_masks()(BATCH, masks))


@pytest.mark.parametrize("absent", [("image", "text"), ("state", "video", "waveform", "text", "image")])
def test_an_absent_modality_is_as_if_it_were_left_out(absent):
    masks = {name: np.full(3, name not in absent) for name in NAMES}
    rest = {name: raw for name, raw in BATCH.items() if name not in absent}
    left_out = call(tiny_model(), rest, {})
    for name, answer in with_masks()(BATCH, masks).items():
        close(answer, left_out[name])


def test_every_modality_counts():
    full = with_masks()(BATCH, everyone())["label"]
    for name in NAMES:
        masks = everyone()
        masks[name][0] = False
        hidden = np.asarray(with_masks()(BATCH, masks)["label"])
        assert np.abs(hidden[0] - full[0]).max() > 1e-4, name
        np.testing.assert_array_equal(hidden[1:], full[1:])


def test_encoding_once_serves_many_questions():
    model = tiny_model()
    whole = call(model, BATCH, {})
    latents = nnx.jit(lambda m: m.encode(BATCH))(model)
    assert set(latents.tokens) == {"points"}
    answers = nnx.jit(lambda m, latents: m.decode(latents, ASKED))(model, latents)
    for name in ASKED:
        close(answers[name], whole[name], 1e-6)


def test_an_answer_does_not_depend_on_the_rest_of_the_batch():
    run = nnx.jit(lambda m, inputs: m(inputs, outputs=["embedding"])["embedding"])
    together = run(tiny_model(), BATCH)
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-6)
    close(run(tiny_model(), {name: raw[1:2] for name, raw in BATCH.items()}), together[1:2])
    assert np.abs(together[1] - together[0]).max() > 1e-3


def test_chosen_queries_are_rows_of_the_full_answer():
    chosen = {"pixels": np.array([23, 0, 9]), "segments": np.array([[5], [0], [2]])}
    answers = nnx.jit(lambda m: (m(BATCH, outputs=list(chosen), queries=chosen), m(BATCH, outputs=list(chosen))))
    some, whole = answers(tiny_model())
    close(some["pixels"], np.asarray(whole["pixels"]).reshape(3, 24, 2)[:, chosen["pixels"]], 1e-6)
    close(some["segments"][:, 0], np.asarray(whole["segments"])[np.arange(3), [5, 0, 2]], 1e-6)


def test_latents_and_tokens_pass_through_jit():
    latents = nnx.jit(lambda m: m.encode({"points": BATCH["points"]}))(tiny_model())
    assert isinstance(latents, p.Latents)
    assert isinstance(latents.tokens["points"], Tokens)
    assert latents.values.shape == (3, 5, 8)


def test_attention_shows_where_the_first_look_goes():
    model = filled(lambda rngs: p.Perceiver(two_looks(), rngs))
    masks = {"state": np.array([True, False]), "points": np.ones((2, 6), bool)}
    masks["points"][:, 4:] = False
    inputs = {name: BATCH[name][:2] for name in masks}
    weights, expected = nnx.jit(lambda m: (m.attention(inputs, masks), by_hand(m, inputs, masks)))(model)
    assert {name: part.shape for name, part in weights.items()} == {"points": (2, 1, 3, 6), "state": (2, 1, 3, 2)}
    both = np.concatenate([weights["points"], weights["state"]], axis=-1)
    np.testing.assert_allclose(both.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(weights["points"][..., 4:], 0)
    np.testing.assert_array_equal(weights["state"][1], 0)
    close(both, expected, 1e-6)


def two_looks():
    """A model whose first cross-attend is the second set of weights."""
    encoder = p.Encoder(3, 8, depth=1, latent=p.Block(heads=2), cross_attends=(1, 0), towers=(0, 0))
    return tiny_config(inputs={n: tiny_inputs()[n] for n in ("points", "state")}, encoder=encoder, outputs={})


def by_hand(model, inputs, masks):
    joined = model.join(model.tokenise(inputs, masks))
    return model.encoder.cross[1].weights(model.encoder.start(joined), joined)


def test_modalities_are_widened_by_learned_channels_at_the_end():
    model = tiny_model()
    tokens = {"text": Tokens(jnp.ones((2, 3, 8))), "image": Tokens(jnp.ones((2, 1, 22)))}
    joined = model.join(tokens)
    assert joined.values.shape == (2, 4, 26)
    assert model.config.token_channels == 26
    np.testing.assert_array_equal(joined.values[0, 0, 22:], model.join.padding["image"][...])
    np.testing.assert_array_equal(joined.values[1, 3, 8:], model.join.padding["text"][...])
    np.testing.assert_array_equal(joined.values[1, 3, :8], 1)


def test_hiding_modalities_in_training_never_hides_all_nor_shows_absent_ones():
    config = tiny_config(
        inputs={n: tiny_inputs()[n] for n in ("points", "state", "text")}, outputs={}, modality_dropout=0.7
    )
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    present = {"points": np.arange(300) % 3 > 0, "state": np.arange(300) % 3 != 1, "text": np.arange(300) % 3 < 2}
    tokens = {n: Tokens(jnp.zeros((300, 2, 1)), jnp.broadcast_to(m[:, None], (300, 2))) for n, m in present.items()}
    dropped = model._drop_modalities(tokens, jax.random.key(0))
    shown = np.stack([np.asarray(dropped[n].mask) for n in sorted(present)])
    assert (shown[..., 0] == shown[..., 1]).all()
    was = np.stack([present[n] for n in sorted(present)])
    assert not (shown[..., 0] & ~was).any()
    assert (shown.any(axis=(0, 2)) == was.any(axis=0)).all()
    # Of two, both are kept with 0.3 x 0.3, and with 0.7 x 0.7 because none would be left.
    assert 0.45 < (shown[..., 0].sum(axis=0) == 2).mean() < 0.7
    assert model._drop_modalities(tokens, None) is tokens


def test_no_key_means_no_randomness_and_a_key_means_dropout():
    config = tiny_config(
        inputs={"state": tiny_inputs()["state"]},
        encoder=p.Encoder(3, 8, depth=1, latent=p.Block(heads=2, dropout=0.5)),
        outputs={"label": p.Classes(3)},
    )
    model = filled(lambda rngs: p.Perceiver(config, rngs))
    run = nnx.jit(lambda m, key: m({"state": BATCH["state"]}, key=key)["label"])
    np.testing.assert_array_equal(run(model, None), run(model, None))
    first, again, other = (run(model, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_answers():
    kept = {n: tiny_inputs()[n] for n in ("points", "text", "image")}
    inputs = {n: BATCH[n] for n in kept}
    run = nnx.jit(lambda m: (m.encode(inputs).values, m(inputs, outputs=["embedding", "words"])))
    wide, half = (filled(lambda rngs, c=c: p.Perceiver(tiny_config(inputs=kept, compute=c), rngs)) for c in Compute)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half, nnx.Param))} == {jnp.dtype("float32")}
    latents, answers = run(half)
    assert latents.dtype == jnp.bfloat16
    for name, expected in run(wide)[1].items():
        assert answers[name].dtype == jnp.float32
        close(answers[name], expected, 0.1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"imgae": BATCH["image"]}, r"inputs\['imgae'\]: no such modality; did you mean 'image'\?"),
        ({}, "expected at least one of image, points"),
        ({"image": BATCH["image"], "state": BATCH["state"][:2]}, r"one batch size, got {'image': 3, 'state': 2}"),
        ({"image": BATCH["image"].astype(np.int32)}, r"inputs\['image'\]: .*got dtype int32"),
        ({"video": BATCH["video"][0]}, r"inputs\['video'\]: expected shape"),
        ({"waveform": BATCH["waveform"][0]}, r"inputs\['waveform'\]: expected shape \(b, n\)"),
        ({"sound": BATCH["sound"].astype(int)}, r"inputs\['sound'\]: .*got dtype int64"),
        ({"points": BATCH["points"][..., :3]}, r"inputs\['points'\]: expected shape \(b, n, 4\)"),
        ({"state": BATCH["state"].tolist()}, r"inputs\['state'\]: expected an array .*got list"),
        ({"text": BATCH["text"].astype(float)}, r"inputs\['text'\]: expected .*integer values, got dtype float64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs, message):
    with pytest.raises(InputError, match=message):
        tiny_model().encode(inputs)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"stat": np.ones(3, bool)}, r"inputs\['stat'\]: no such modality; did you mean 'state'\?"),
        ({"text": np.ones(3, bool)}, r"masks\['text'\]: a mask without its input"),
        ({"state": np.ones(3)}, r"inputs\['state'\]: a mask must be bool"),
        ({"state": np.ones(2, bool)}, r"inputs\['state'\]: a mask must have shape \(3,\) or \(3, 2\), got \(2,\)"),
    ],
)
def test_masks_that_do_not_fit_are_named(masks, message):
    with pytest.raises(InputError, match=message):
        tiny_model().encode({"state": BATCH["state"]}, masks)


LATENTS = p.Latents(jnp.zeros((2, 5, 8)), {})


@pytest.mark.parametrize(
    ("outputs", "queries", "message"),
    [
        (["lable"], None, r"outputs\['lable'\]: no such output; did you mean 'label'\?"),
        (None, {"pixel": np.array([0])}, r"outputs\['pixel'\]: no such output; did you mean 'pixels'\?"),
        (["label"], {"pixels": np.array([0])}, r"queries\['pixels'\]: this output is not among the asked: label"),
        (["field"], None, r"outputs\['field'\]: expected coordinates"),
        (["segments"], None, r"outputs\['segments'\]: expected the input 'points'"),
        (["label"], {"label": np.zeros((1, 2), np.float32)}, r"outputs\['label'\]: expected integer indices"),
    ],
)
def test_questions_that_do_not_fit_are_named(outputs, queries, message):
    with pytest.raises(InputError, match=message):
        tiny_model().decode(LATENTS, outputs, queries)


def test_a_model_of_an_example_batch_of_every_adapter():
    model = tiny_model()
    inputs = {name: adapter.example(2) for name, adapter in tiny_inputs().items()}
    assert {name: (raw.shape[1:], raw.dtype) for name, raw in inputs.items()} == {
        name: (raw.shape[1:], raw.dtype) for name, raw in BATCH.items()
    }
    for name, adapter in tiny_inputs().items():
        tokens = jax.eval_shape(lambda x, n=name: model.adapters[n](x), inputs[name])
        assert tokens.values.shape == (2, adapter.tokens, adapter.channels)


def test_what_fills_an_abstract_model_in_changes_no_other():
    first = tiny_config().abstract()
    first.encoder.latents.set_value(jnp.zeros(3))
    assert tiny_config().abstract().encoder.latents.shape != (3,)


def test_the_same_seed_builds_the_same_model_and_another_seed_another():
    config = tiny_config(inputs={"state": p.State(2)}, outputs={"label": p.Classes(2)})
    build = jax.jit(lambda seed: jax.tree.leaves(nnx.state(config.build(seed), nnx.Param)))
    first, again, other = (build(seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))


def test_presence_of_a_batch_is_everywhere_at_first():
    masks = presence_of(BATCH)
    assert set(masks) == set(BATCH)
    assert all(mask.shape == (3,) and mask.all() for mask in masks.values())
