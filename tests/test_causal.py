import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import InputError
from perceiver.attention import Block
from perceiver.causal import CausalText, LanguageConfig
from perceiver.errors import ConfigError
from perceiver.pretrained import from_pretrained

TEXT = CausalText(vocabulary=20, max_length=12, channels=16, depth=2, block=Block(heads=2, widening=2, dropout=0.3))


def ids(seed=0, count=9):
    return jax.random.randint(jax.random.key(seed), (2, count), 0, 20)


def test_a_position_knows_only_what_comes_before_it():
    model = LanguageConfig(TEXT).build(0)
    whole = model(ids())
    changed = model(ids().at[:, 5:].set(3))
    assert whole.shape == (2, 9, 20)
    assert whole.dtype == jnp.float32
    np.testing.assert_allclose(whole[:, :5], changed[:, :5], atol=1e-6)
    assert np.abs(whole[:, 5:] - changed[:, 5:]).max() > 1e-3
    np.testing.assert_allclose(model(ids()[:, :4]), whole[:, :4], atol=1e-5)


def test_dropout_is_drawn_from_the_key_and_from_nothing_else():
    model = LanguageConfig(TEXT).build(0)
    key = jax.random.key(1)
    np.testing.assert_array_equal(model(ids(), key=key), model(ids(), key=key))
    assert np.abs(model(ids(), key=key) - model(ids())).max() > 1e-3


def test_it_is_saved_and_loaded(tmp_path):
    model = LanguageConfig(TEXT).build(3)
    again = from_pretrained(model.save(tmp_path / "model"))
    assert again.config == model.config
    np.testing.assert_array_equal(again(ids()), model(ids()))


def test_what_does_not_fit_is_said():
    model = LanguageConfig(TEXT).build(0)
    with pytest.raises(InputError, match="ids: expected at most 12 tokens, got 13"):
        model(ids(count=13))
    with pytest.raises(InputError, match="ids"):
        model(jnp.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"CausalText\.channels is 15, which 2 heads do not divide"):
        CausalText(20, 12, 15, 1, Block(heads=2))
    with pytest.raises(ConfigError, match=r"CausalText\.depth must be at least 1"):
        CausalText(20, 12, 16, 0)
