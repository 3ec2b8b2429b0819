import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perceiver import attend as module
from perceiver import tiles
from perceiver.attend import CPU_LOGITS, DEVICE_LOGITS, Backend, Problem, attend, attention_weights, choose_backend
from perceiver.errors import InputError
from tests.attending import explicit, padded, problem, value_and_gradients
from tests.models import close

SMALL = 8
"""Keys of a tile in these tests, so that a handful of keys is several tiles; the five queries are three tiles."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 1)
    monkeypatch.setattr(tiles, "FEWEST_KEYS", SMALL)
    monkeypatch.setattr(tiles, "FEWEST_QUERIES", 2)


def some(keys, seed=0):
    """A mask that differs everywhere, with a row that sees nothing and one that sees the last key only."""
    mask = np.random.default_rng(seed).random((2, 3, 5, keys)) < 0.6
    mask[0, 0, 1] = False
    mask[1, 2, 3] = np.arange(keys) == keys - 1
    return jnp.asarray(mask)


def by_backend(**options):
    """A compiled function (q, k, v, mask) -> values and gradients by backend, and of the textbook."""
    ways = {"textbook": explicit}
    for backend in (Backend.XLA, Backend.TILED):
        ways[backend.name] = functools.partial(attend, backend=backend, **options)
    return jax.jit(lambda *given: {way: value_and_gradients(function)(*given) for way, function in ways.items()})


@pytest.mark.parametrize(
    ("keys", "make_mask"),
    [(5, some), (SMALL, some), (3 * SMALL, some), (19, some), (19, padded), (19, lambda keys: None)],
    ids=["less than a block", "one block", "whole blocks", "blocks and rest", "tokens", "no mask"],
)
def test_both_paths_equal_the_textbook_in_values_and_gradients(keys, make_mask):
    ways = by_backend()(*problem(keys), make_mask(keys))
    expected = ways.pop("textbook")
    for actual in ways.values():
        for have, want in zip(actual, expected, strict=True):
            close(have, want, 2e-6)


@pytest.mark.parametrize("backend", [Backend.XLA, Backend.TILED])
def test_a_query_that_sees_nothing_gets_exactly_zero(backend):
    out = jax.jit(functools.partial(attend, backend=backend))(*problem(19), some(19))
    np.testing.assert_array_equal(out[0, 1, 0], 0)
    assert (np.asarray(out[0, 0, 0]) != 0).all()


@functools.cache
def compiled_ways():
    return jax.jit(lambda *qkv: [attend(*qkv, backend=backend) for backend in (Backend.XLA, Backend.TILED)])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.floats(0.1, 60.0))
def test_large_logits_neither_overflow_nor_lose_the_maximum(seed, scale):
    q, k, v = problem(19, seed)
    whole, tiled = compiled_ways()(q * scale, k, v)
    assert np.isfinite(whole).all()
    close(tiled, whole)


def test_bfloat16_stays_close_to_float32():
    arrays = problem(19, dtype=jnp.bfloat16)
    expected = jax.jit(value_and_gradients(explicit))(*[array.astype(jnp.float32) for array in arrays], some(19))
    ways = by_backend()(*arrays, some(19))
    for backend in (Backend.XLA, Backend.TILED):
        for have, want in zip(ways[backend.name], expected, strict=True):
            assert have.dtype == jnp.bfloat16
            close(have.astype(jnp.float32), want, 2e-2)


@pytest.mark.parametrize("backend", [Backend.XLA, Backend.TILED])
def test_dropout_depends_on_its_key_alone_and_keeps_the_mean(backend):
    arrays = problem(19)

    @jax.jit
    def dropped(seed):
        keys = jax.random.split(jax.random.key(seed), 2000)
        return jax.lax.map(lambda key: attend(*arrays, dropout=0.4, key=key, backend=backend), keys, batch_size=100)

    many = np.asarray(dropped(0))
    np.testing.assert_array_equal(dropped(0), many)
    assert not np.allclose(dropped(1), many)
    assert not np.allclose(many[0], many[1])
    plain = attend(*arrays, dropout=0.4, backend=backend)
    np.testing.assert_array_equal(plain, attend(*arrays, backend=backend))
    error = (many.mean(axis=0) - plain) / (many.std(axis=0) / np.sqrt(len(many)))
    assert np.abs(error).max() < 5  # standard errors


@pytest.mark.parametrize(
    ("backend", "make_key"),
    [(Backend.XLA, jax.random.key), (Backend.TILED, jax.random.key), (Backend.TILED, jax.random.PRNGKey)],
    ids=["xla", "tiled", "tiled, old kind of key"],
)
def test_gradients_under_dropout_are_those_of_the_weights_that_were_kept(backend, make_key):
    keys, rate = 19, 0.3
    identity = jnp.broadcast_to(jnp.eye(keys)[:, None], (2, keys, 3, keys))

    @jax.jit
    def run(q, k, v, mask):
        dropped = functools.partial(attend, dropout=rate, key=make_key(3), backend=backend)
        # With the identity as values the answers are the dropped weights themselves, which show what was kept.
        weights = jnp.moveaxis(dropped(q, k, identity, mask), 2, 1)
        drop = jnp.where(weights > 0, 1 / (1 - rate), 0.0)
        plain = attention_weights(q, k, mask)
        expected = value_and_gradients(explicit)(q, k, v, mask, drop)
        return weights, drop, plain, value_and_gradients(dropped)(q, k, v, mask), expected

    weights, drop, plain, actual, expected = run(*problem(keys), some(keys))
    close(weights, plain * drop)
    assert 0.6 < (drop > 0).sum() / (plain > 0).sum() < 0.8
    for have, want in zip(actual, expected, strict=True):
        close(have, want, 2e-6)


def test_weights_sum_to_one_or_to_zero_where_nothing_is_seen():
    q, k, _ = problem(19)
    sums = np.asarray(attention_weights(q, k, some(19)).sum(axis=-1))
    expected = np.ones_like(sums)
    expected[0, 0, 1] = 0
    np.testing.assert_allclose(sums, expected, atol=1e-6)


def temporary_bytes(function, keys):
    shapes = ((1, 16, 2, 16), (1, keys, 2, 16), (1, keys, 2, 16))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    mask = jax.ShapeDtypeStruct((1, 1, 1, keys), bool)
    return jax.jit(function).lower(*arrays, mask).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
def test_working_memory_of_the_tiled_path_does_not_grow_with_the_keys(monkeypatch, gradient):
    monkeypatch.setattr(tiles, "FEWEST_KEYS", 256)
    taken = {}
    for backend in (Backend.TILED, Backend.XLA):

        def function(q, k, v, mask, backend=backend):
            return attend(q, k, v, mask, backend=backend)

        run = jax.grad(lambda *given, f=function: f(*given).sum(), (0, 1, 2)) if gradient else function
        taken[backend] = [temporary_bytes(run, keys) for keys in (1024, 8192)]
    few, many = taken[Backend.TILED]
    assert many == few
    assert taken[Backend.XLA][1] > 7 * taken[Backend.XLA][0]
    assert many < taken[Backend.XLA][1] / 4


LONG = {"batch": 1, "heads": 1, "queries": 512, "keys": 50176, "qk_width": 64, "v_width": 64}


@pytest.mark.parametrize(
    ("platform", "changes", "expected"),
    [
        ("cpu", {}, Backend.TILED),
        ("tpu", {}, Backend.SPLASH),
        ("tpu", {"channels": 64}, Backend.SPLASH),
        ("tpu", {"dtype": jnp.float32}, Backend.TILED),
        ("tpu", {"dropout": 0.1}, Backend.TILED),
        ("tpu", {"by_query": True}, Backend.TILED),
        ("tpu", {"qk_width": 261, "v_width": 261}, Backend.TILED),
        ("gpu", {}, Backend.CUDNN),
        ("gpu", {"dtype": jnp.float16}, Backend.CUDNN),
        ("gpu", {"keys": 100}, Backend.CUDNN),
        ("gpu", {"keys": 63}, Backend.XLA),
        ("gpu", {"queries": 63}, Backend.XLA),
        ("gpu", {"dtype": jnp.float32}, Backend.TILED),
        ("gpu", {"dropout": 0.1}, Backend.TILED),
        ("gpu", {"qk_width": 261, "v_width": 261}, Backend.TILED),
        ("gpu", {"qk_width": 60, "v_width": 60}, Backend.CUDNN),
        ("gpu", {"v_width": 32}, Backend.CUDNN),
        ("gpu", {"qk_width": 136, "v_width": 256}, Backend.CUDNN),
        ("gpu", {"qk_width": 136, "v_width": 257}, Backend.TILED),
        ("gpu", {"keys": 100, "dtype": jnp.float32}, Backend.XLA),
        ("cpu", {"queries": 1}, Backend.XLA),
        ("cpu", {"queries": 1, "keys": CPU_LOGITS}, Backend.XLA),
        ("cpu", {"queries": 1, "keys": CPU_LOGITS + 1}, Backend.TILED),
        ("tpu", {"queries": 1, "keys": DEVICE_LOGITS}, Backend.XLA),
        ("tpu", {"queries": 1, "keys": DEVICE_LOGITS + 1}, Backend.SPLASH),
        ("cpu", {"queries": 256, "keys": 256, "heads": 8}, Backend.XLA),
        ("cpu", {"queries": 512, "keys": 512, "heads": 8}, Backend.TILED),
        ("cpu", {"channels": 64}, Backend.FOLDED),
        ("gpu", {"channels": 64}, Backend.CUDNN),
        ("gpu", {"channels": 261, "qk_width": 261, "v_width": 261}, Backend.FOLDED),
        ("cpu", {"channels": 64, "heads": 8, "qk_width": 8, "v_width": 8}, Backend.TILED),
        ("cpu", {"channels": 64, "queries": 50177}, Backend.TILED),
    ],
)
def test_the_backend_follows_from_platform_dtype_widths_and_size(platform, changes, expected):
    assert choose_backend(Problem(**{**LONG, "dtype": jnp.bfloat16, **changes}), platform) is expected


def test_attend_takes_the_chosen_backend(monkeypatch):
    asked = []

    def choose(problem):
        asked.append(problem)
        return Backend.TILED

    monkeypatch.setattr(module, "choose_backend", choose)
    arrays = problem(19)
    jax.eval_shape(lambda: attend(*arrays, dropout=0.5))
    jax.eval_shape(lambda: attend(*arrays, dropout=0.5, key=jax.random.key(0)))
    jax.eval_shape(lambda: attend(*arrays, some(19)))
    jax.eval_shape(lambda: attend(*arrays, padded(19)))
    expected = [(0.0, False), (0.5, False), (0.0, True), (0.0, False)]
    shape = (2, 3, 5, 19, 6, 10)
    assert asked == [Problem(*shape, jnp.dtype("float32"), rate, by_query=by_query) for rate, by_query in expected]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5, 3, 6), (2, 7, 3, 4), (2, 7, 3, 4)), r"\(2, 5, 3, 6\), \(2, 7, 3, 4\), \(2, 7, 3, 4\)"),
        (((2, 5, 3, 6), (1, 7, 3, 6), (1, 7, 3, 6)), r"queries \[b, q, h, d\]"),
        (((2, 5, 3, 6), (2, 7, 3, 6), (2, 8, 3, 6)), r"\(2, 8, 3, 6\)"),
        (((2, 5, 3, 6), (2, 7, 1, 6), (2, 7, 1, 6)), r"\(2, 7, 1, 6\)"),
        (((2, 5, 6), (2, 7, 6), (2, 7, 6)), r"\(2, 5, 6\)"),
    ],
)
def test_shapes_that_do_not_belong_together_are_named(shapes, message):
    with pytest.raises(InputError, match=message):
        attend(*[jnp.zeros(shape) for shape in shapes])


@pytest.mark.parametrize(
    "mask",
    [jnp.ones((2, 3, 5, 19)), jnp.ones((2, 1, 1, 1), bool), jnp.ones((3, 1, 1, 19), bool), jnp.ones((2, 19), bool)],
    ids=["float", "one key", "batch", "axes"],
)
def test_a_mask_that_does_not_fit_is_named(mask):
    with pytest.raises(InputError, match=rf"broadcasts to \(2, 3, 5, 19\), got {mask.dtype} \({mask.shape[0]}, "):
        attend(*problem(19), mask)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize(("queries", "keys"), [(64, 96), (63, 97), (64, 97), (63, 96)])
@pytest.mark.parametrize("widths", [(64, 64), (32, 160)])
def test_cudnn_equals_the_textbook(queries, keys, widths):
    rng = np.random.default_rng(0)
    shapes = [(2, count, 3, width) for count, width in zip((queries, keys, keys), (widths[0], *widths), strict=True)]
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
    wide = [array.astype(jnp.float32) for array in arrays]
    by_query = rng.random((2, 3, queries, keys)) < 0.6
    by_query[0, 0, 1] = False
    for mask in (None, jnp.asarray(by_query), padded(keys)):
        expected = jax.jit(value_and_gradients(explicit))(*wide, mask)
        fused = jax.jit(value_and_gradients(functools.partial(attend, backend=Backend.CUDNN)))
        for have, want in zip(fused(*arrays, mask), expected, strict=True):
            close(have.astype(jnp.float32), want, 2e-2)
