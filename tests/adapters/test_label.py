import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError, InputError
from tests.models import built, encoding

ANIMALS = p.Label(3, ("ant", "bee", "7"))
WEIGHTS = np.float32([[0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_and_weights_are_tokens_of_the_compute_dtype(dtype):
    module = ANIMALS.build(dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    for raw, expected in ((np.array([2, 1], np.uint8), np.eye(3)[[2, 1]]), (WEIGHTS, WEIGHTS)):
        tokens = module(raw)
        assert tokens.values.dtype == dtype
        assert tokens.values.shape == (2, ANIMALS.tokens, ANIMALS.channels) == (2, 1, 3)
        np.testing.assert_allclose(tokens.values[:, 0].astype(np.float32), expected, atol=2e-3)
    assert (ANIMALS.example(4).shape, ANIMALS.example(4).dtype) == ((4,), jnp.int32)


def test_the_weights_of_an_absent_label_do_not_matter():
    (encode, gradient), mask = encoding(ANIMALS), np.array([True, False])
    spoilt = np.where(mask[:, None], WEIGHTS, np.float32("nan"))
    np.testing.assert_array_equal(encode(spoilt, mask), encode(WEIGHTS, mask))
    assert all(np.isfinite(leaf).all() for leaf in gradient(spoilt, mask))
    hidden = built(ANIMALS)(WEIGHTS, mask[:, None])
    np.testing.assert_array_equal(hidden.mask, mask[:, None])
    np.testing.assert_array_equal(hidden.values[1], 0)


@pytest.mark.parametrize(
    ("raw", "mask", "message"),
    [
        (np.zeros(2, np.float32), None, "integer values, got dtype float32"),
        (np.zeros((2, 4), np.float32), None, r"shape \(b, 3\), got \(2, 4\)"),
        (np.zeros((2, 3), np.int32), None, "floating point values, got dtype int32"),
        (np.zeros((2, 1, 3), np.float32), None, r"shape \(b, 3\), got \(2, 1, 3\)"),
        (np.zeros(2, np.int32), np.ones(3, bool), r"\(2,\) or \(2, 1\), got \(3,\)"),
        (np.zeros(2, np.int32), np.ones(2), "a mask must be bool"),
    ],
)
def test_what_does_not_fit_is_refused(raw, mask, message):
    with pytest.raises(InputError, match=message):
        built(ANIMALS)(raw, mask)


@pytest.mark.parametrize(("source", "number"), [("ant", 0), ("7", 2), ("2", 2), (1, 1), (np.int64(2), 2)])
def test_a_class_is_taken_by_its_name_before_its_number(source, number):
    loaded, mask = ANIMALS.load(source)
    assert (loaded.dtype, loaded.shape, mask) == (np.int32, (), None)
    assert loaded == number


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ent", r"expected a class, got 'ent'; did you mean 'ant'\? known: 7, ant, bee"),
        (None, "expected a class, got None"),
        ([1, 2], r"expected a class, got \[1, 2\]"),
        ("x" * 200, "expected a class, got 'x{59};"),
        (-1, "class number below 3, got -1"),
        ("3", "class number below 3, got 3"),
    ],
)
def test_a_source_that_is_no_class_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        ANIMALS.load(source)


@pytest.mark.parametrize("source", [1.7, float("inf")])
def test_a_fraction_is_no_class(source):
    with pytest.raises(InputError, match="expected a class"):
        ANIMALS.load(source)


def test_configs_that_cannot_be_are_refused():
    for given, message in (((1,), "at least 2 classes"), ((3, ("a", "b")), "as many names, got 3, 2")):
        with pytest.raises(ConfigError, match=message):
            p.Label(*given)
