import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from perceiver import Fourier, Image, InputError
from perceiver.attention import Block
from perceiver.captioner import CaptionerConfig, caption, frozen, hold
from perceiver.causal import CausalText, LanguageConfig
from perceiver.errors import ConfigError
from perceiver.pretrained import from_pretrained
from perceiver.resampler import GatedCrossAttend, Resampler
from perceiver.training.optimizers import adamw, frozen_where

MARKER, END = 4, 2
TEXT = CausalText(vocabulary=20, max_length=12, channels=16, depth=2, block=Block(heads=2, widening=2))


def config(latest=True):
    return CaptionerConfig(
        media=Image((8, 8, 3), patch=4, position=Fourier(bands=2)),
        resampler=Resampler(latents=3, channels=16, depth=1, heads=2, head_channels=8),
        text=TEXT,
        look=GatedCrossAttend(16, 16, heads=2, head_channels=8, latest=latest),
        marker=MARKER,
    )


def opened(model, gate=1.0):
    """Open all gates, which are shut at the start."""
    for look in model.looks:
        look.attention_gate[...] = jnp.float32(gate)
        look.mlp_gate[...] = jnp.float32(gate)
    return model


@functools.partial(jax.jit, static_argnums=0)
def _called(graph, state, *given):
    return nnx.merge(graph, state)(*given)


def logits_of(model, *given):
    """As calling the model, but compiled."""
    return np.asarray(_called(*nnx.split(model), *given))


def pictures(seed=0, count=2, batch=2):
    return jax.random.uniform(jax.random.key(seed), (batch, count, 8, 8, 3))


def ids():
    return jnp.array([[5, MARKER, 6, 7, MARKER, 8, 9], [MARKER, 5, 5, MARKER, 6, 6, 6]])


def test_with_shut_gates_it_is_the_frozen_model_exactly():
    alone, model = LanguageConfig(TEXT).build(5), config().build(1)
    nnx.update(model.text, nnx.state(alone.text))
    np.testing.assert_array_equal(logits_of(model, pictures(), ids()), logits_of(alone, ids()))
    assert np.abs(logits_of(opened(model), pictures(), ids()) - logits_of(alone, ids())).max() > 1e-3


@pytest.mark.parametrize("latest", [True, False])
def test_a_position_sees_only_the_media_before_it(latest):
    model = opened(config(latest).build(1))
    before = logits_of(model, pictures(), ids())
    for number, starts in ((0, (1, 0)), (1, (4, 3))):
        other = pictures().at[:, number].set(pictures(9)[:, number])
        differs = np.abs(logits_of(model, other, ids()) - before).max(axis=-1) > 1e-5
        for row, start in enumerate(starts):
            # each position also sees what the earlier ones have seen, through the text model
            np.testing.assert_array_equal(differs[row], np.arange(7) >= start)


@pytest.mark.slow
def test_training_leaves_the_text_model_alone():
    model = config().build(1)
    graph, parameters = nnx.split(model, nnx.Param)
    parameters = nnx.as_pure(parameters)
    optimizer = frozen_where(frozen, adamw(0.1, weight_decay=0.1))

    @jax.jit
    def loss(parameters):
        model = nnx.merge(graph, parameters)
        hold(model.text)
        logits = model(pictures(), ids())
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], ids()[:, 1:]).mean()

    @jax.jit
    def step(parameters, state):
        gradients = jax.grad(loss)(parameters)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, gradients["text"]

    trained, state = parameters, optimizer.init(parameters)
    for _ in range(8):
        trained, state, held = step(trained, state)
        assert all(not leaf.any() for leaf in jax.tree.leaves(held))
    assert loss(trained) < loss(parameters) - 0.05
    jax.tree.map(np.testing.assert_array_equal, trained["text"], parameters["text"])
    moments = [leaf.size for leaf in jax.tree.leaves(state)]
    assert sum(moments) < 2.1 * sum(
        leaf.size for name in parameters if name != "text" for leaf in jax.tree.leaves(parameters[name])
    )


def test_captions_are_written_of_the_picture_and_are_the_same_in_any_company():
    model = opened(config().build(1))
    model.text.table[...] *= 30  # so that what is seen matters to what is written
    for look in model.looks:
        look.out.kernel[...] *= 30
    start = jnp.full((2, 12), MARKER, jnp.int32)
    lengths = jnp.array([1, 1])
    rows = caption(model, pictures(count=1), start, lengths, end=END, padding=0)
    assert rows.shape == (2, 12)
    alone = caption(model, pictures(count=1)[:1], start[:1], lengths[:1], end=END, padding=0)
    np.testing.assert_array_equal(rows[0], alone[0])
    other = caption(model, pictures(7, count=1), start, lengths, end=END, padding=0)
    assert (rows != other).any()


def test_it_is_saved_and_loaded(tmp_path):
    model = opened(config().build(3))
    again = from_pretrained(model.save(tmp_path / "model"))
    assert again.config == model.config
    np.testing.assert_array_equal(logits_of(again, pictures(), ids()), logits_of(model, pictures(), ids()))


def test_what_does_not_fit_is_said():
    model = config().build(0)
    with pytest.raises(InputError, match="ids"):
        model(pictures(), ids()[:1])
    with pytest.raises(InputError, match="media"):
        model(pictures()[..., :2], ids())
    with pytest.raises(InputError, match=r"media: expected \[b, m, …\], got \(2, 8\)"):
        model(jnp.zeros((2, 8)), ids())
    with pytest.raises(
        ConfigError, match=r"CaptionerConfig\.look: expected channels 16 of text and 16 of media, got 16 and 8"
    ):
        CaptionerConfig(config().media, config().resampler, TEXT, GatedCrossAttend(16, 8), MARKER)
    with pytest.raises(ConfigError, match=r"CaptionerConfig\.marker: expected an id below 20, got 20"):
        CaptionerConfig(config().media, config().resampler, TEXT, config().look, 20)
