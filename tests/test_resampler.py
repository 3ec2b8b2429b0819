"""The resampler and the gated layer; tests/parity compares them with their references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import ConfigError, InputError
from perceiver.resampler import GatedCrossAttend, Resampler, media_times
from tests.models import filled

FLOAT = jnp.dtype("float32")
RESAMPLER = Resampler(3, 8, 2, heads=2, head_channels=4, frames=4, media=3)
GATED = GatedCrossAttend(6, 8, heads=2, head_channels=4)
LOCATIONS = jnp.asarray([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0]], bool)


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), FLOAT)


def module(config):
    return filled(lambda rngs: config.build(dtype=FLOAT, rngs=rngs))


@pytest.mark.parametrize(("media", "frames", "tokens"), [(1, 1, 1), (3, 4, 5), (2, 1, 9)])
def test_any_number_of_tokens_becomes_the_same_number_of_latents(media, frames, tokens):
    assert module(RESAMPLER)(noise(0, 2, media, frames, tokens, 8)).shape == (2, media, 3, 8)


def test_masked_tokens_change_nothing_and_each_picture_stands_for_itself():
    resampler, x = module(RESAMPLER), noise(0, 2, 3, 2, 5, 8)
    mask = np.random.default_rng(0).random((2, 3, 2, 5)) < 0.6
    found = resampler(x, mask)
    np.testing.assert_allclose(resampler(jnp.where(mask[..., None], x, 99.0), mask), found, atol=1e-5)
    other = resampler(x.at[:, 1].set(7.0), mask)
    np.testing.assert_array_equal(other[:, [0, 2]], found[:, [0, 2]])
    assert not np.allclose(other[:, 1], found[:, 1])
    blind = resampler(x, np.zeros((2, 3, 2, 5), bool))
    assert np.isfinite(blind).all()


def test_the_order_of_frames_counts_where_they_are_marked():
    x = noise(0, 1, 1, 3, 5, 8)
    marked, unmarked = (module(Resampler(3, 8, 1, heads=2, head_channels=4, frames=f)) for f in (4, None))
    assert not np.allclose(marked(x), marked(x[:, :, ::-1]), atol=1e-3)
    np.testing.assert_allclose(unmarked(x), unmarked(x[:, :, ::-1]), atol=1e-5)


def test_at_first_the_layer_changes_nothing():
    fresh = GATED.build(dtype=FLOAT, rngs=nnx.Rngs(0))
    text, media = noise(0, 2, 6, 6), noise(1, 2, 2, 3, 8)
    np.testing.assert_array_equal(fresh(text, media, media_times(LOCATIONS)), text)
    graph, state = nnx.split(fresh)

    def total(state):
        return nnx.merge(graph, state)(text, media, media_times(LOCATIONS)).sum()

    gradients = jax.grad(total)(state)
    assert gradients["attention_gate"][...] != 0.0  # but it can learn to
    assert gradients["mlp_gate"][...] != 0.0


@pytest.mark.parametrize("latest", [True, False])
def test_text_sees_only_the_media_before_it(latest):
    config = GatedCrossAttend(6, 8, heads=2, head_channels=4, latest=latest)
    layer, text, media = module(config), noise(0, 2, 6, 6), noise(1, 2, 2, 3, 8)
    times = media_times(LOCATIONS)
    assert times.tolist() == [[0, 1, 1, 1, 2, 2], [1] * 6]
    found = layer(text, media, times)
    first, second = (layer(text, media.at[:, i].set(5.0), times) for i in range(2))
    np.testing.assert_array_equal(second[0, :4], found[0, :4])  # the second comes at the fifth place
    np.testing.assert_array_equal(second[1], found[1])  # and not at all
    assert not np.allclose(second[0, 4:], found[0, 4:])
    np.testing.assert_array_equal(first[0, :1], found[0, :1])
    assert not np.allclose(first[0, 1:4], found[0, 1:4])
    assert np.allclose(first[0, 4:], found[0, 4:]) == latest
    blind = layer.attended(text, media, times)[0, 0]
    np.testing.assert_array_equal(blind, jnp.zeros(6))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (noise(0, 1, 1, 5, 2, 8), "tokens: expected at most 4 frames, got 5"),
        (noise(0, 1, 4, 1, 2, 8), "tokens: expected at most 3 media, got 4"),
        (noise(0, 1, 1, 1, 2, 7), "expected shape"),
    ],
)
def test_what_does_not_fit_is_said(tokens, message):
    with pytest.raises(InputError, match=message):
        module(RESAMPLER)(tokens)


def test_impossible_resamplers_are_refused():
    with pytest.raises(ConfigError, match="kv_heads must divide 8 heads, got 3"):
        Resampler(3, 8, 1, kv_heads=3)
    with pytest.raises(ConfigError, match="depth must be at least 1, got 0"):
        Resampler(3, 8, 0)
