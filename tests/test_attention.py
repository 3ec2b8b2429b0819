import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from perceiver.attend import Backend
from perceiver.attention import (
    Activation,
    Attention,
    Block,
    CrossAttend,
    Mlp,
    SelfAttend,
    Stack,
    dropout,
    layer_norm,
    split_key,
)
from perceiver.errors import ConfigError
from perceiver.positions import rotary_angles
from perceiver.tokens import Tokens
from tests.models import close, filled

FLOAT = jnp.dtype("float32")
X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
KEYS = np.random.default_rng(1).normal(size=(2, 7, 6)).astype(np.float32)


def cross(config, **widths):
    return filled(lambda rngs: CrossAttend(8, 6, config, dtype=FLOAT, rngs=rngs, **widths))


def stack(remat, depth=3, **fields):
    config = Block(heads=2, **fields)
    return filled(lambda rngs: Stack(8, depth, config, remat=remat, dtype=FLOAT, rngs=rngs))


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (Activation.GELU_TANH, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
        (Activation.GELU_ERF, lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
        (Activation.QUICK_GELU, lambda x: x / (1 + np.exp(-1.702 * x))),
        (Activation.RELU, lambda x: np.maximum(x, 0)),
        (Activation.SQUARED_RELU, lambda x: np.maximum(x, 0) ** 2),
    ],
)
def test_each_activation_is_its_formula(activation, formula):
    x = np.linspace(-4, 4, 41)
    np.testing.assert_allclose(activation(jnp.asarray(x, jnp.float32)), formula(x), atol=2e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 0}, "heads and widening"),
        ({"heads": 3, "qk_channels": 8}, "qk_channels is 8, which 3 heads"),
        ({"heads": 3, "v_channels": 8}, "v_channels is 8, which 3 heads"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"attention_dropout": -0.1}, "attention_dropout must be in"),
    ],
)
def test_a_block_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Block(**fields)


def test_heads_must_divide_the_width_that_is_taken_from_the_keys():
    with pytest.raises(ConfigError, match="4 heads do not divide the query-key width 6"):
        cross(Block(heads=4))


def test_widths_follow_the_keys_unless_given():
    def widths(config):
        attention = filled(lambda rngs: Attention(8, 6, 8, config, dtype=FLOAT, rngs=rngs))
        return [getattr(attention, name).kernel.shape for name in ("query", "key", "value", "out")]

    assert widths(Block()) == [(8, 6), (6, 6), (6, 6), (6, 8)]
    assert widths(Block(qk_channels=4)) == [(8, 4), (6, 4), (6, 4), (4, 8)]
    assert widths(Block(qk_channels=4, v_channels=10)) == [(8, 4), (6, 4), (6, 10), (10, 8)]


def test_a_residual_adds_the_queries_and_needs_their_width():
    with_residual, without = cross(Block(widening=2)), cross(Block(widening=2, residual=False))

    @nnx.jit
    def run(with_residual, without):
        attended = without.attention(without.query_norm(X), without.key_norm(KEYS))
        expected = attended + without.mlp(attended), X + attended + without.mlp(X + attended)
        return (without(X, Tokens(KEYS)), with_residual(X, Tokens(KEYS))), expected

    for actual, expected in zip(*run(with_residual, without), strict=True):
        close(actual, expected)
    narrow = cross(Block(residual=False), out_channels=4)
    assert jax.eval_shape(lambda: narrow(X, Tokens(KEYS))).shape == (2, 5, 4)
    with pytest.raises(ConfigError, match="queries 8 and output 4"):
        cross(Block(), out_channels=4)


def test_masked_tokens_are_not_seen():
    module, mask = cross(Block(heads=2)), np.arange(7) < np.array([[4], [7]])
    run = nnx.jit(lambda m, tokens: (m(X, tokens), m.weights(X, tokens)))
    seen, weights = run(module, Tokens(KEYS, mask))
    close(seen[0], run(module, Tokens(KEYS[:, :4]))[0][0])
    close(seen[1], run(module, Tokens(KEYS))[0][1])
    assert weights.shape == (2, 2, 5, 7)
    np.testing.assert_array_equal(weights[0, :, :, 4:], 0)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_norms_keep_their_accuracy_far_from_zero_and_have_the_epsilon_of_the_references():
    module = nnx.jit(lambda m, x: m(x))
    x = np.random.default_rng(0).normal(size=(1, 3, 8)).astype(np.float32)
    norm = layer_norm(8, FLOAT, nnx.Rngs(0))
    np.testing.assert_allclose(
        module(norm, 1000 + x), (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True), atol=1e-3
    )
    tiny = np.float32([[[1e-3, -1e-3] * 4]])
    np.testing.assert_allclose(module(norm, tiny), tiny / np.sqrt(1e-6 + 1e-5), rtol=1e-5)


def test_norms_of_bfloat16_have_float32_statistics():
    x = jnp.asarray(10 + np.random.default_rng(0).normal(size=(1, 1, 512)), jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    normed = layer_norm(512, x.dtype, nnx.Rngs(0))(x)
    assert normed.dtype == jnp.bfloat16
    np.testing.assert_allclose(normed.astype(np.float32), (wide - wide.mean()) / wide.std(), atol=0.02)


def test_rotary_self_attention_depends_on_distances_only():
    module = filled(lambda rngs: SelfAttend(8, Block(heads=2), dtype=FLOAT, rngs=rngs))
    run = jax.jit(lambda positions: module(X, angles=rotary_angles(positions, 4)))
    places = jnp.broadcast_to(jnp.arange(5.0), (2, 5))
    close(run(places + 7), run(places))
    assert not np.allclose(run(places * 2), run(places), atol=1e-3)


def test_a_stack_is_its_layers_one_after_another():
    module, mask = stack(False), jnp.tril(jnp.ones((5, 5), bool))[None, None]

    @nnx.jit
    def run(module):
        graph, state = nnx.split(module.layers)
        expected = jnp.asarray(X)
        for index in range(3):
            layer = nnx.merge(graph, jax.tree.map(lambda leaf, i=index: leaf[i], state))
            expected = layer(expected, mask)
        return expected, module(X, mask), module(X)

    expected, masked, unmasked = run(module)
    close(masked, expected)
    assert not np.allclose(unmasked, expected, atol=1e-3)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    x = jnp.ones((100, 1000))
    dropped = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs((dropped == 0).mean() - 0.25) < 0.01
    assert dropout(x, 0.25, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_no_key_splits_into_no_keys():
    assert split_key(None, 3) == (None, None, None)
    assert len({tuple(map(int, jax.random.key_data(k))) for k in split_key(jax.random.key(0), 3)}) == 3


def test_every_dropout_rate_acts_and_without_a_key_none_does():
    for rates in ({"dropout": 0.5}, {"attention_dropout": 0.5}):
        run = nnx.jit(lambda m, key: m(X, Tokens(KEYS), key=key))
        module = cross(Block(heads=2, **rates))
        first, again, other = (run(module, jax.random.key(seed)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)
        np.testing.assert_array_equal(run(module, None), run(cross(Block(heads=2)), None))


@pytest.mark.parametrize("backend", [Backend.XLA, Backend.TILED])
def test_a_blind_query_gets_the_mean_of_all_values_where_that_is_asked_for(backend, monkeypatch):
    monkeypatch.setattr("perceiver.attention.choose_backend", lambda *_: backend)
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 6))
    mask = np.ones((2, 1, 3, 5), bool)
    mask[0, 0, 1] = False
    module = filled(lambda rngs: Attention(4, 6, 4, Block(mean_when_blind=True), dtype=FLOAT, rngs=rngs))
    out = module(jnp.asarray(queries, FLOAT), jnp.asarray(keys, FLOAT), jnp.asarray(mask))
    expected = module.out(module.value(jnp.asarray(keys[:1], FLOAT)).mean(axis=1))
    np.testing.assert_allclose(out[0, 1], expected[0], atol=1e-5)
    module.mean_when_blind = False
    zeros = module(jnp.asarray(queries, FLOAT), jnp.asarray(keys, FLOAT), jnp.asarray(mask))
    np.testing.assert_allclose(zeros[0, 1], module.out.bias[...], atol=1e-6)
    seen = np.array([[True, False, True], [True, True, True]])
    np.testing.assert_allclose(out[seen], zeros[seen], atol=1e-6)


def test_the_width_of_an_mlp_and_the_epsilon_of_a_norm_are_declared():
    config = Block(widening=4, mlp_channels=7, epsilon=0.5)
    mlp = filled(lambda rngs: Mlp(6, config, dtype=FLOAT, rngs=rngs))
    assert mlp.widen.kernel.shape == (6, 7)
    assert mlp.norm.epsilon == 0.5
    with pytest.raises(ConfigError, match="epsilon"):
        Block(epsilon=0.0)
    with pytest.raises(ConfigError, match="mlp_channels"):
        Block(mlp_channels=0)


def test_a_query_looks_where_both_masks_let_it():
    looking = np.array([[True, False, True, True, True], [False] * 5])
    tokens = Tokens(KEYS, np.arange(7) < np.array([[4], [7]]))
    module = cross(Block(heads=2))
    run = nnx.jit(lambda m, tokens, looking: m(X, tokens, looking=looking))
    found, everyone = run(module, tokens, looking), run(module, tokens, None)
    np.testing.assert_array_equal(run(module, tokens, np.ones((2, 5), bool)), everyone)
    close(found[looking], everyone[looking], 1e-6)
    blind = X + module.attention.out.bias[...]
    close(found[~looking], (blind + module.mlp(blind))[~looking], 1e-5)


@pytest.mark.parametrize("backend", [Backend.XLA, Backend.TILED])
def test_a_blind_query_has_a_finite_gradient_and_its_mean_trains_the_values(backend, monkeypatch):
    monkeypatch.setattr("perceiver.attention.choose_backend", lambda *_: backend)
    looking = np.array([[True, False, True, True, True], [False] * 5])
    graph, state = nnx.split(cross(Block(heads=2, mean_when_blind=True, residual=False)))

    @jax.jit
    def gradient(state, queries):
        def answer(state, queries):
            out = nnx.merge(graph, state)(queries, Tokens(KEYS), looking=looking)
            return (jnp.where(looking[..., None], 0.0, out) ** 2).sum()

        return jax.grad(answer, (0, 1))(state, queries)

    parameters, queries = gradient(state, X)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((parameters, queries)))
    np.testing.assert_array_equal(queries, 0)
    assert np.abs(parameters.attention.value.kernel[...]).max() > 0
    np.testing.assert_allclose(parameters.attention.query.kernel[...], 0, atol=1e-6)
