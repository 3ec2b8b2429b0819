import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.errors import ConfigError, InputError
from perceiver.positions import grid
from perceiver.tokens import Tokens
from tests.models import NARROW, close, filled

FLOAT = jnp.dtype("float32")
CLOUD = Tokens(
    jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32), np.arange(5) < np.array([[5], [3]])
)


def module(query):
    return filled(lambda rngs: query.build(8, {"points": 3}, dtype=FLOAT, rngs=rngs))


def ask(query, at=None, batch=2):
    return module(query)(batch, None if at is None else jnp.asarray(at), {"points": CLOUD})


@pytest.mark.parametrize(
    ("query", "at", "count"),
    [
        (p.Slots(4), None, 4),
        (p.Slots(4, width=6), np.array([2]), 1),
        (p.Grid((2, 3)), None, 6),
        (p.Grid((2, 3), project=5), np.array([0, 5]), 2),
        (p.Grid((2, 3), p.Learned(7)), np.zeros((2, 4, 2), np.float32), 4),
        (p.AtPoints((0.0,) * 3, (1.0,) * 3, NARROW), np.zeros((2, 3, 3), np.float32), 3),
        (p.AtTimes(2.0), np.zeros((3, 1), np.float32), 3),
        (p.FromTokens("points"), None, 5),
        (p.FromTokens("points", project=4), np.array([1, 2]), 2),
        (p.FromTokens("points", cells=(5,)), None, 5),
        (p.WithInput("points", 2, p.Grid((5,))), None, 5),
        (p.WithInput("points", 3, p.Grid((5,), project=4)), np.array([1, 2]), 2),
    ],
)
def test_queries_have_the_declared_width(query, at, count):
    values = ask(query, at).values
    assert values.shape == (2, count, query.channels(8, {"points": 3}))
    if at is None and query.shape is not None:
        assert count == np.prod(query.shape)


@pytest.mark.parametrize(
    "query",
    [
        p.Slots(6, width=4),
        p.Grid((2, 3)),
        p.Grid((2, 3), inclusive=False),
        p.FromTokens("points"),
        p.FromTokens("points", cells=(5,)),
        p.Grid((2, 3), project=4),
        p.WithInput("points", 2, p.Grid((5,))),
    ],
)
def test_chosen_queries_are_rows_of_the_whole(query):
    whole, built = ask(query), module(query)
    chosen = np.array([4, 0, 4])
    some = built(2, jnp.asarray(chosen), {"points": CLOUD})
    close(some.values, whole.values[:, chosen], 1e-6)
    per_sample = built(2, jnp.array([[0, 1], [3, 4]]), {"points": CLOUD})
    close(per_sample.values[1], whole.values[1, 3:5], 1e-6)
    if whole.mask is not None:
        np.testing.assert_array_equal(some.mask, whole.mask[:, chosen])
        np.testing.assert_array_equal(per_sample.mask, [[True, True], [False, False]])


def test_a_grid_answers_at_coordinates_between_its_cells():
    query = p.Grid((2, 3))
    close(ask(query, grid((2, 3))).values, ask(query).values, 1e-6)
    between = ask(query, np.float32([[0.5, 0.25]])).values
    assert np.abs(between - ask(query).values).max(axis=-1).min() > 0.01


def test_an_exclusive_grid_leaves_coordinates_as_they_are():
    query = p.Grid((2, 4), p.Fourier(bands=2), inclusive=False)
    np.testing.assert_array_equal(ask(query).values[0, :, 0], [-1] * 4 + [0] * 4)
    np.testing.assert_array_equal(ask(query).values[0, :4, 1], [-1, -0.5, 0, 0.5])
    place = np.float32([[0.5, 0.25]])
    np.testing.assert_array_equal(ask(query, place).values, ask(p.Grid((2, 4), p.Fourier(bands=2)), place).values)


def test_the_inputs_values_come_before_the_places_under_the_inputs_mask():
    query = p.WithInput("points", 2, p.Grid((5,), p.Fourier(bands=1)))
    asked = ask(query)
    np.testing.assert_array_equal(asked.values[..., :2], CLOUD.values[..., :2])
    np.testing.assert_array_equal(asked.values[1, :, 2:], ask(query.grid).values[1])
    np.testing.assert_array_equal(asked.mask, CLOUD.mask)


def test_metric_queries_are_positions_of_the_extent():
    points = ask(p.AtPoints((0.0, 0.0, 0.0), (2.0, 4.0, 8.0), NARROW), np.float32([[1, 4, 0]])).values
    expected = NARROW.build((1, 1, 1), nnx.Rngs(0))(jnp.float32([[0, 1, -1]]))
    close(points[1], expected, 1e-6)
    times = ask(p.AtTimes(2.0), np.float32([[0.0], [1.5]])).values
    np.testing.assert_allclose(times[0, :, 0], [-1, 0.5])


@pytest.mark.parametrize(
    ("query", "at", "message"),
    [
        (p.AtPoints((0.0,) * 3, (1.0,) * 3), None, r"coordinates \[q, 3\] or \[b, q, 3\] as the query, got none"),
        (p.AtPoints((0.0,) * 3, (1.0,) * 3), np.array([1, 2]), "expected floating coordinates"),
        (p.AtPoints((0.0,) * 3, (1.0,) * 3), np.zeros((4, 2), np.float32), r"got \(4, 2\)"),
        (p.AtTimes(1.0), None, r"coordinates \[q, 1\]"),
        (p.Grid((2, 3)), np.zeros((4, 3), np.float32), r"coordinates \[q, 2\]"),
        (p.Slots(3), np.zeros((2, 1), np.float32), "integer indices"),
        (p.FromTokens("points"), np.zeros((2, 1), np.float32), "integer indices"),
        (p.FromTokens("points"), np.zeros((3, 2), np.int32), r"a batch of 2 as the query, got \(3, 2\)"),
        (p.WithInput("points", 2, p.Grid((2, 3))), None, "expected 6 tokens, one a cell, got 5"),
        (p.WithInput("points", 2, p.Grid((5,))), np.zeros((2, 1), np.float32), "integer indices"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(query, at, message):
    with pytest.raises(InputError, match=message):
        ask(query, at)


def test_an_absent_source_is_named():
    with pytest.raises(InputError, match="expected the input 'points', whose tokens are the queries; it is absent"):
        module(p.FromTokens("points"))(2, None, {})
    with pytest.raises(ConfigError, match=r"no input 'point'; did you mean 'points'\?"):
        p.FromTokens("point").channels(8, {"points": 3})
    with pytest.raises(ConfigError, match=r"no input 'point'; did you mean 'points'\?"):
        p.WithInput("point", 1, p.Grid((5,))).channels(8, {"points": 3})
    with pytest.raises(ConfigError, match="width is 4, the tokens of 'points' have 3 channels"):
        module(p.WithInput("points", 4, p.Grid((5,))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: p.Slots(0), "count must be at least 1, got 0"),
        (lambda: p.Slots(2, width=0), "width must be at least 1, got 0"),
        (lambda: p.Grid(()), "cells must be positive"),
        (lambda: p.Grid((2, 0)), "cells must be positive"),
        (lambda: p.AtPoints((0.0,), (0.0,)), "low < high"),
        (lambda: p.AtPoints((0.0, 0.0), (1.0, 1.0)), "max_resolution of 2 axes"),
        (lambda: p.AtTimes(0.0), "low < high"),
        (lambda: p.AtTimes(1.0, p.Fourier(2)), "max_resolution of one axis"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
