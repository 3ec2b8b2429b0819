import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError
from tests.models import close, filled

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)
TABLE = jnp.asarray(np.random.default_rng(1).normal(size=(11, 8)), jnp.float32)


def module(head, dtype="float32"):
    return filled(lambda rngs: head.build(8, dtype=jnp.dtype(dtype), rngs=rngs))


@pytest.mark.parametrize(
    ("head", "width"),
    [
        (p.Classes(5), 5),
        (p.Dense(4), 4),
        (p.Regression(2), 2),
        (p.Chunk(3, 6), 6),
        (p.Embedding(7), 7),
        (p.TokenLogits(9), 9),
        (p.TokenLogits(11, tied_to="text"), 11),
        (p.Flow(), 2),
        (p.SoundPatches(6, sample_rate=8000), 6),
        (p.CTC("abc "), 5),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_head_answers_in_float32(head, width, dtype):
    out = module(head, dtype)(X.astype(dtype), {"text": TABLE})
    assert out.shape == (2, 3, width)
    assert out.dtype == jnp.float32


@pytest.mark.parametrize("make", [p.Regression, lambda dims, **given: p.Chunk(3, dims, **given)])
def test_answers_come_in_the_targets_own_units(make):
    plain, scaled = module(make(2)), module(make(2, mean=(10.0, -5.0), std=(2.0, 0.5)))
    close(scaled(X, {}), plain(X, {}) * np.array([2, 0.5]) + np.array([10, -5]), 1e-6)


def test_flow_comes_in_pixels():
    plain, scaled = module(p.Dense(2)), module(p.Flow(scale=20.0))
    close(scaled(X, {}), 20.0 * plain(X, {}), 1e-6)


def test_embeddings_have_length_one_and_zero_stays_zero():
    head = module(p.Embedding(4))
    np.testing.assert_allclose(np.linalg.norm(head(X, {}), axis=-1), 1, atol=1e-6)
    head.linear.bias[...] = jnp.zeros(4)
    np.testing.assert_array_equal(head(jnp.zeros((1, 1, 8)), {}), 0)


def test_the_similarity_starts_at_the_declared_scale_and_bias():
    head = p.Embedding(4, scale=20.0, bias=-10.0).build(8, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(jnp.exp(head.log_scale[...]), 20, rtol=1e-6)
    np.testing.assert_allclose(head.bias[...], -10)


def test_tied_logits_are_products_with_the_embedding():
    head = module(p.TokenLogits(11, tied_to="text"))
    close(head(X, {"text": TABLE}), np.asarray(X) @ np.asarray(TABLE).T + np.asarray(head.bias[...]))


def test_a_table_that_does_not_fit_is_named():
    head = module(p.TokenLogits(11, tied_to="txt"))
    with pytest.raises(ConfigError, match=r"no text input 'txt'; did you mean 'text'\?"):
        head(X, {"text": TABLE})
    with pytest.raises(ConfigError, match=r"expected the embedding of 'txt' to be \(11, 8\), it is \(11, 6\)"):
        head(X, {"txt": TABLE[:, :6]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: p.Classes(1), "at least 2"),
        (lambda: p.Classes(3, ("a", "b")), "got 3, 2 names"),
        (lambda: p.Regression(2, mean=(0.0,), std=(1.0,)), "expected 2 means"),
        (lambda: p.Chunk(0, 2), "at least 1, got 0 and 2"),
        (lambda: p.Chunk(3, 2, mean=(0.0, 0.0), std=(1.0, -1.0)), "above 0"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_heads_ask_for_themselves_where_the_question_goes_without_saying():
    assert p.Classes(2).query.shape == p.Regression(2).query.shape == p.Embedding(2).query.shape == ()
    assert p.Chunk(1, 2).query.shape == (1,)
    assert p.Dense(2).query is None
    assert p.TokenLogits(2).query is None
    assert p.Flow().query is None
    assert p.SoundPatches(2, sample_rate=8000).query is None
