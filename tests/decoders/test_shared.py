"""What an Output may share or leave out: trunks, query masks, and chunks with both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import InputError
from perceiver.tokens import Tokens
from tests.models import close, filled

FLOAT = jnp.dtype("float32")
RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(2, 4, 8)).astype(np.float32)
TOKENS = {"points": Tokens(RNG.normal(size=(2, 10, 3)).astype(np.float32), np.arange(10) < np.array([[10], [6]]))}
TRUNK = p.Trunk(6, p.Block(residual=False), project=5)
LOOKING = RNG.random((2, 10)) < 0.5


class Shared(nnx.Module):
    """Outputs around one trunk."""

    def __init__(self, outputs, rngs):
        self.trunks = nnx.Dict({"t": TRUNK.build(8, dtype=FLOAT, rngs=rngs)})
        kind = {"dtype": FLOAT, "rngs": rngs}
        self.decoders = nnx.List([output.build(8, {"points": 3}, {"t": TRUNK}, **kind) for output in outputs])

    def __call__(self, latents, at=None, looking=None):
        return [decoder(latents, TOKENS, {}, at, looking=looking, trunks=self.trunks) for decoder in self.decoders]


def shared(*outputs):
    return filled(lambda rngs: Shared(outputs, rngs))


run = nnx.jit(lambda module, latents, at=None, looking=None: module(latents, at, looking))


@pytest.mark.parametrize(
    "query", [p.FromTokens("points", project=4), p.Grid((10,), p.Fourier(1))], ids=["tokens", "grid"]
)
def test_chunks_with_a_trunk_and_a_query_mask_change_nothing(query):
    whole, chunked = (shared(p.Output(p.Dense(2), query, trunk="t", chunk=chunk)) for chunk in (None, 4))
    for at, looking in ((None, LOOKING), (jnp.array([9, 0, 3, 3, 7]), LOOKING[:, :5])):
        close(run(chunked, LATENTS, at, looking)[0], run(whole, LATENTS, at, looking)[0], 1e-6)


def test_a_query_that_does_not_look_learns_nothing_from_the_latents():
    module = shared(p.Output(p.Dense(2), p.Slots(10, width=6), trunk="t"))
    graph, state = nnx.split(module)

    @jax.jit
    def gradient(latents, counted):
        def answer(latents):
            return jnp.where(counted[..., None], nnx.merge(graph, state)(latents, None, LOOKING)[0], 0.0).sum()

        return jax.grad(answer)(latents)

    np.testing.assert_array_equal(gradient(LATENTS, ~LOOKING), 0)
    assert np.abs(gradient(LATENTS, LOOKING)).max() > 1e-3


def test_every_output_of_a_trunk_trains_it():
    module = shared(
        p.Output(p.Dense(2), p.Slots(2, width=4), trunk="t"), p.Output(p.Classes(3), p.Slots(1, width=6), trunk="t")
    )
    graph, state = nnx.split(module)
    gradient = jax.jit(jax.grad(lambda s, own: (nnx.merge(graph, s)(LATENTS)[own] ** 2).sum()), static_argnums=1)
    for own in (0, 1):
        found = nnx.merge(graph, gradient(state, own))
        assert np.abs(found.trunks["t"].project.kernel[...]).max() > 0
        assert np.abs(found.decoders[own].query.slots[...]).max() > 0
        np.testing.assert_array_equal(found.decoders[1 - own].query.slots[...], 0)
        assert np.any(found.decoders[0].padding[...]) == (own == 0)


@pytest.mark.parametrize(
    ("looking", "message"),
    [
        (np.ones((2, 9), bool), r"bool mask \(2, 10\) of queries, got bool \(2, 9\)"),
        (np.ones(10, bool), r"got bool \(10,\)"),
        (np.ones((2, 10)), r"bool mask \(2, 10\) of queries, got float"),
    ],
)
def test_a_query_mask_that_does_not_fit_is_refused(looking, message):
    module = shared(p.Output(p.Dense(2), p.Slots(10, width=6), trunk="t"))
    with pytest.raises(InputError, match=message):
        module(LATENTS, None, looking)


@pytest.mark.parametrize(
    "query",
    [p.FromTokens("points", cells=(4, 3)), p.WithInput("points", 2, p.Grid((4, 3), p.Fourier(1)))],
    ids=["tokens", "with input"],
)
def test_a_grid_that_the_tokens_do_not_fill_is_refused_in_chunks_too(query):
    for chunk in (None, 5):
        output = p.Output(p.Dense(2), query, p.Block(residual=False), chunk=chunk)
        module = filled(lambda rngs, output=output: output.build(8, {"points": 3}, dtype=FLOAT, rngs=rngs))
        with pytest.raises(InputError, match="12 tokens, those of a full grid"):
            jax.eval_shape(lambda m=module: m(LATENTS, TOKENS, {}))


def test_a_pooled_answer_is_one_vector_whatever_the_head():
    for head, width in ((p.Classes(3), 3), (p.Regression(2), 2), (p.Embedding(4), 4)):
        module = filled(lambda rngs, head=head: p.Pooled(head).build(8, {}, dtype=FLOAT, rngs=rngs))
        assert jax.eval_shape(lambda m=module: m(LATENTS, {}, {})).shape == (2, width)
        for given in ({"at": jnp.arange(1)}, {"looking": np.ones((2, 1), bool)}):
            with pytest.raises(InputError, match="expected no query"):
                module(LATENTS, {}, {}, **given)
