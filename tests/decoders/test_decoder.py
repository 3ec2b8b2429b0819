import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError, InputError
from perceiver.tokens import Tokens
from tests.models import close, filled

FLOAT = jnp.dtype("float32")
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(2, 4, 8)).astype(np.float32)
TOKENS = {"points": Tokens(RNG.normal(size=(2, 10, 3)).astype(np.float32), np.arange(10) < np.array([[10], [6]]))}


def decoder(**fields):
    output = p.Output(**{"head": p.Dense(3), "query": p.Grid((4, 5)), **fields})
    return filled(lambda rngs: output.build(8, {"points": 3}, dtype=FLOAT, rngs=rngs))


@nnx.jit
def decode(module, at=None, key=None):
    return module(LATENTS, TOKENS, {}, at, key=key)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"head": p.Classes(5), "query": None}, (2, 5)),
        ({"head": p.Classes(5), "query": p.Slots(3)}, (2, 3, 5)),
        ({"head": p.Chunk(1, 2), "query": None}, (2, 1, 2)),
        ({}, (2, 4, 5, 3)),
        ({"query": p.FromTokens("points")}, (2, 10, 3)),
    ],
)
def test_answers_have_the_shape_of_the_question(fields, shape):
    module = decoder(**fields)
    assert jax.eval_shape(lambda: module(LATENTS, TOKENS, {})).shape == shape


@pytest.mark.parametrize("query", [p.Grid((4, 5)), p.FromTokens("points")], ids=["grid", "tokens"])
@pytest.mark.parametrize("chunk", [1, 7, 10])
def test_decoding_in_chunks_changes_nothing(query, chunk):
    close(decode(decoder(query=query, chunk=chunk)), decode(decoder(query=query)), 1e-6)


def test_chosen_queries_are_rows_of_the_whole_in_chunks_too():
    whole = decode(decoder()).reshape(2, 20, 3)
    for at in (jnp.array([19, 0, 3, 3, 7]), jnp.array([[1, 2, 3, 4], [0, 0, 19, 18]])):
        expected = jnp.take_along_axis(whole, jnp.broadcast_to(at, (2, at.shape[-1]))[..., None], axis=1)
        for chunk in (None, 3):
            close(decode(decoder(chunk=chunk), at), expected, 1e-6)


def test_chunks_of_coordinates_keep_their_order():
    at = jnp.asarray(RNG.uniform(-1, 1, (2, 7, 2)), jnp.float32)
    close(decode(decoder(chunk=3), at), decode(decoder(), at), 1e-6)


def test_a_masked_query_is_answered_with_zeros():
    out = np.asarray(decode(decoder(query=p.FromTokens("points"))))
    np.testing.assert_array_equal(out[1, 6:], 0)
    assert (np.abs(out[1, :6]).max(axis=-1) > 0).all()


def test_decoding_in_chunks_takes_less_memory():
    def temporary(chunk):
        module = decoder(query=p.Grid((64, 64)), chunk=chunk)
        graph, state = nnx.split(module)
        lowered = jax.jit(lambda s: nnx.merge(graph, s)(LATENTS, {}, {})).lower(state)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    answers = 2 * 64 * 64 * 3 * 4
    assert temporary(256) - 3 * answers < (temporary(None) - answers) / 4


def test_dropout_differs_between_chunks_and_follows_the_key():
    module = decoder(query=p.Slots(4), cross=p.Block(dropout=0.5), chunk=2)
    module.query.slots[...] = jnp.ones((4, 8))
    out = np.asarray(decode(module, None, jax.random.key(0)))
    np.testing.assert_array_equal(out, decode(module, None, jax.random.key(0)))
    assert not np.allclose(out[:, :2], out[:, 2:])
    still = np.asarray(decode(module))
    np.testing.assert_allclose(still[:, :2], still[:, 2:], atol=1e-6)


@pytest.mark.parametrize("at", [np.zeros(3, np.float32), np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 2, 3), int)])
def test_a_query_of_the_wrong_kind_is_refused(at):
    with pytest.raises(InputError, match=r"expected integer indices \[q\] or \[b, q\], or coordinates"):
        decoder()(LATENTS, TOKENS, {}, at)


def test_outputs_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="Dense has no query of its own"):
        p.Output(p.Dense(1))
    with pytest.raises(ConfigError, match="chunk must be at least 1, got 0"):
        p.Output(p.Classes(2), chunk=0)
    with pytest.raises(ConfigError, match="Pooled gives one answer, and Chunk has one for each of"):
        p.Pooled(p.Chunk(3, 2))
    with pytest.raises(ConfigError, match=r"Grid\.inclusive: learned positions have no ends"):
        p.Grid((4, 4), p.Learned(width=3), inclusive=False)
    with pytest.raises(ConfigError, match=r"WithInput\.width must be at least 1, got 0"):
        p.WithInput("image", 0, p.Grid((4, 4)))
