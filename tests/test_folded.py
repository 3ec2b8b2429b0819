import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from perceiver import attention, folded, tiles
from perceiver.attend import Backend, choose_backend
from perceiver.attention import Block, CrossAttend
from perceiver.folded import attend_tokens, folding_pays, group
from perceiver.tokens import Tokens
from tests.models import close

FLOAT = jnp.dtype("float32")
KEYS = 19


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 1)
    monkeypatch.setattr(tiles, "FEWEST_KEYS", 8)


def arrays(seed=0, keys=KEYS):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, 3, 8)), FLOAT), jnp.asarray(rng.normal(size=(2, keys, 6)) + 1, FLOAT)


def block(heads, **options):
    """A cross-attend whose every parameter differs from its start, norms and biases too."""
    config = Block(heads=heads, qk_channels=4, v_channels=10, **options)
    graph, state = nnx.split(CrossAttend(8, 6, config, dtype=FLOAT, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    return graph, jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape) * 0.3, x.dtype), state)


MASKS = {
    "none": lambda keys: None,
    "tokens": lambda keys: np.arange(keys) < np.array([[keys - keys // 3], [0]]),
    "first block hidden": lambda keys: np.broadcast_to(np.arange(keys) >= min(10, keys - 1), (2, keys)),
}
LOOKING = {"all": None, "some": np.array([[True, False, True], [True, True, False]])}


@pytest.mark.parametrize(
    ("keys", "heads", "mask", "looking", "mean"),
    [
        (KEYS, 1, "none", "all", False),
        (KEYS, 2, "tokens", "all", False),
        (KEYS, 2, "tokens", "some", True),
        (KEYS, 1, "first block hidden", "some", False),
        (16, 2, "none", "some", True),
        (5, 1, "tokens", "all", False),
    ],
)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_folding_changes_neither_answers_nor_gradients(monkeypatch, platform, keys, heads, mask, looking, mean):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    queries, tokens = arrays(keys=keys)
    graph, state = block(heads, mean_when_blind=mean)
    tokens_mask = MASKS[mask](keys)

    def answer(state, queries, tokens):
        out = nnx.merge(graph, state)(queries, Tokens(tokens, tokens_mask), looking=LOOKING[looking])
        return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum(), out

    results = []
    for backend in (Backend.XLA, Backend.FOLDED):
        monkeypatch.setattr(attention, "choose_backend", lambda problem, backend=backend: backend)
        results.append(jax.jit(jax.value_and_grad(answer, (0, 1, 2), has_aux=True))(state, queries, tokens))
    ((_, want), want_gradients), ((_, have), have_gradients) = results
    close(have, want, 1e-6)
    for want, have in zip(*map(jax.tree.leaves, (want_gradients, have_gradients)), strict=True):
        close(have, want, 1e-5)


def test_the_mean_over_dropout_keys_is_the_answer_without_dropout():
    rng = np.random.default_rng(0)
    queries, tokens = jnp.asarray(rng.normal(size=(1, 2, 2, 6)), FLOAT), arrays()[1][:1]
    run = functools.partial(attend_tokens, queries, tokens, None, epsilon=1e-5, dropout=0.4)
    many = jax.jit(lambda keys: jax.lax.map(lambda key: run(key=key), keys, batch_size=100))
    for dropped, plain in zip(many(jax.random.split(jax.random.key(0), 2000)), run(key=None), strict=True):
        error = (dropped.mean(axis=0) - plain) / (dropped.std(axis=0) / np.sqrt(len(dropped)))
        assert np.abs(error).max() < 5  # standard errors
        assert dropped.std(axis=0).min() > 0


def test_gradients_under_dropout_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    queries, tokens = jnp.asarray(rng.normal(size=(2, 2, 2, 6)), FLOAT), arrays()[1]
    mask = jnp.asarray(rng.random((2, 2, 2, KEYS)) < 0.7)

    def run(queries, tokens):
        return attend_tokens(queries, tokens, mask, epsilon=1e-5, dropout=0.4, key=jax.random.key(1))

    check_grads(run, (queries, tokens), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_working_memory_does_not_grow_with_the_tokens(gradient):
    def loss(queries, tokens):
        return attend_tokens(queries, tokens, None, epsilon=1e-5)[0].sum()

    taken = []
    for keys in (1024, 16384):
        shapes = [jax.ShapeDtypeStruct(shape, FLOAT) for shape in ((1, 16, 1, 32), (1, keys, 32))]
        compiled = jax.jit(jax.grad(loss, (0, 1)) if gradient else loss).lower(*shapes).compile()
        taken.append(compiled.memory_analysis().temp_size_in_bytes)
    assert taken[0] == taken[1]


def test_folding_pays_exactly_where_it_saves_multiplications():
    """Counted from the products of both ways, one by one."""
    sizes = ((1, 64, 600), (1, 90, 700), (1, 2, 8), (8, 261), (8, 512), (16, 1280))
    for queries, keys, heads, channels, qk, v in itertools.product(*sizes):
        plain = keys * channels * qk + keys * channels * v + queries * keys * qk + queries * keys * v
        carried, values = queries * qk * channels, queries * channels * v
        folded = carried + heads * queries * keys * channels + heads * queries * keys * channels + values
        assert folding_pays(queries, keys, heads, channels, qk, v) is (folded < plain)


def test_a_cross_attend_folds_by_itself_and_a_self_attend_never_does(monkeypatch):
    asked = []

    def choose(problem):
        asked.append((problem.channels, choose_backend(problem)))
        return asked[-1][1]

    monkeypatch.setattr(attention, "choose_backend", choose)
    graph, state = block(1)
    nnx.merge(graph, state)(*arrays()[:1], Tokens(arrays()[1]))
    attention.SelfAttend(8, Block(), dtype=FLOAT, rngs=nnx.Rngs(0))(arrays()[0])
    assert asked == [(6, Backend.FOLDED), (None, Backend.XLA)]


def test_a_batch_goes_through_in_groups_of_equal_size_that_fit_a_tile(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 2**20)
    monkeypatch.setattr(folded, "FEWEST_KEYS", 512)
    assert [group(64, 96, 784), group(7, 1, 100), group(6, 512, 50176), group(5, 4096, 50176)] == [8, 7, 2, 1]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert group(64, 96, 784) == 64
