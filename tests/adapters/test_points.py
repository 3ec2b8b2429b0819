import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perceiver as p
from perceiver.adapters.points import recentred, thin
from perceiver.errors import ConfigError, InputError
from tests.models import NARROW, built, check_masked_elements_do_not_matter, close, encoding

CUBE = {"low": (-1.0, -2.0, 0.0), "high": (1.0, 2.0, 4.0), "position": NARROW}
SMALL = p.Points(6, features=("intensity",), mean=(0.5,), std=(2.0,), **CUBE)
CLOUD = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)


def test_tokens_are_scaled_points_then_features_then_positions():
    values = built(SMALL)(np.float32([[[1, -2, 2, 4.5]]])).values
    assert values.shape == (1, 1, SMALL.channels) == (1, 1, 4 + 15)
    np.testing.assert_allclose(values[0, 0, :4], [1, -1, 0, 2], atol=1e-6)


def test_a_hidden_layer_makes_the_projection_no_longer_linear():
    module = built(dataclasses.replace(SMALL, hidden=7, project=5))
    hidden = jax.nn.gelu(module.embed.hidden(built(SMALL)(CLOUD).values[..., :4]))
    close(module(CLOUD).values[..., :5], module.embed.project(hidden))


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 2**20))
def test_order_of_the_points_does_not_matter(order, seed):
    cloud = np.random.default_rng(seed).normal(size=(2, 6, 4)).astype(np.float32)
    encode, _ = encoding(SMALL)
    close(encode(cloud[:, order]), encode(cloud))


def test_padding_does_not_matter():
    encode, _ = encoding(SMALL)
    mask = np.broadcast_to(np.arange(6) < 4, (2, 6))
    close(encode(CLOUD, mask), encode(CLOUD[:, :4]))


def test_what_a_mask_hides_does_not_matter():
    for garbage in (np.nan, np.inf):
        check_masked_elements_do_not_matter(SMALL, CLOUD, np.arange(6) < np.array([[3], [5]]), garbage)
    check_masked_elements_do_not_matter(SMALL, CLOUD, np.array([True, False]), np.nan)


def test_a_point_that_is_not_finite_counts_as_masked():
    encode, _ = encoding(SMALL)
    mask = np.ones((2, 6), bool)
    mask[0, 2] = mask[1, 5] = False
    spoilt = CLOUD.copy()
    spoilt[0, 2, 1], spoilt[1, 5, 3] = np.nan, -np.inf
    np.testing.assert_array_equal(encode(spoilt), encode(CLOUD, mask))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 7, 4), np.float32), "at most 6 points, got 7"),
        (np.zeros((2, 6, 3), np.float32), r"shape \(b, n, 4\), got \(2, 6, 3\)"),
        (np.zeros((2, 6, 4), np.int32), "got dtype int32"),
        (np.zeros((2, 0, 4), np.float32), "at least one element"),
    ],
)
def test_what_does_not_fit_is_refused(raw, message):
    module = built(SMALL)
    with pytest.raises(InputError, match=message):
        module(raw)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget must be at least 1"),
        ({"low": (1.0, -2.0, 0.0)}, "low < high"),
        ({"position": p.Fourier(bands=2)}, "needs a max_resolution"),
        ({"features": ("a", "b"), "mean": (0.0,), "std": (1.0,)}, "expected 2 means"),
        ({"hidden": 4}, "Points.hidden: expected a width, and a projection behind it, got 4"),
        ({"hidden": 0, "project": 4}, "Points.hidden: expected a width, and a projection behind it, got 0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        p.Points(**{"budget": 6, **CUBE, **fields})


def test_an_array_is_padded_to_the_budget():
    cloud, mask = SMALL.load(CLOUD[0, :4].astype(np.float64))
    np.testing.assert_array_equal(cloud, np.pad(CLOUD[0, :4], ((0, 2), (0, 0))))
    np.testing.assert_array_equal(mask, np.arange(6) < 4)
    assert cloud.shape == SMALL.example(1).shape[1:]


def test_too_many_points_become_the_same_random_subset_every_time():
    many = np.random.default_rng(1).normal(size=(50, 4))
    cloud, mask = SMALL.load(many)
    assert mask.all()
    np.testing.assert_array_equal(cloud, SMALL.load(many)[0])
    rows = [np.flatnonzero((many.astype(np.float32) == point).all(axis=1)).item() for point in cloud]
    assert rows == sorted(set(rows))
    assert rows != list(range(6))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_thinning_draws_rows_once_each_in_their_order(rows, count, seed):
    cloud = np.arange(rows)[:, None]
    kept = thin(cloud, count, np.random.default_rng(seed))[:, 0]
    assert len(kept) == min(rows, count)
    assert (np.diff(kept) > 0).all()


def test_recentring_stands_a_cloud_on_the_origin_at_its_own_scale():
    config = p.Points(6, recentre=True, **CUBE)
    far = np.float64([[500000.0, 4e6, 120.0], [500001.0, 4e6 + 2, 121.5], [500000.5, 4e6 + 1, np.nan]])
    cloud, mask = config.load(far)
    np.testing.assert_array_equal(cloud[mask], [[-0.5, -1, 0], [0.5, 1, 1.5]])
    moved = recentred(CLOUD[0])
    np.testing.assert_allclose(moved[1:] - moved[:-1], np.diff(CLOUD[0], axis=0), atol=1e-6)


def test_a_file_is_read_with_its_features(tmp_path):
    np.savez(tmp_path / "cloud.npz", xyz=CLOUD[0, :5, :3], intensity=CLOUD[0, :5, 3])
    cloud, mask = SMALL.load(tmp_path / "cloud.npz")
    np.testing.assert_allclose(cloud[mask], CLOUD[0, :5], atol=1e-6)
    assert mask.sum() == 5


def test_a_feature_that_the_file_lacks_is_named(tmp_path):
    np.savez(tmp_path / "cloud.npz", xyz=CLOUD[0, :5, :3])
    with pytest.raises(InputError, match=r"cloud.npz: expected the point feature 'intensity', the file has none"):
        SMALL.load(tmp_path / "cloud.npz")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.npz", "missing.npz"),
        (np.zeros((5, 3)), r"shape \(n, 4\), got \(5, 3\)"),
        (np.zeros((5, 4), int), "got dtype int64"),
        (np.full((5, 4), np.nan), "at least one point with finite numbers"),
        ([[1.0], [2.0, 3.0]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)
