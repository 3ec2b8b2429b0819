import numpy as np
import pytest

from perceiver import InputError, Points
from perceiver.surroundings import NAMES, surroundings


def features(xyz, count=16):
    return dict(zip(NAMES, surroundings(np.asarray(xyz, float), (count,)).mean(axis=0), strict=True))


def spread(scale):
    return np.random.default_rng(0).normal(size=(500, 3)) * scale


def test_a_wire_a_floor_a_wall_and_a_bush_differ():
    wire, floor, wall, bush = (
        features(spread(s)) for s in ((1, 0.001, 0.001), (1, 1, 0.001), (1, 0.001, 1), (1, 1, 1))
    )
    assert wire["linearity"] > 0.95
    assert floor["planarity"] > 0.4
    assert floor["verticality"] < 0.05
    assert wall["verticality"] > 0.95
    assert bush["scattering"] > 2 * max(floor["scattering"], wire["scattering"])


def test_heights_and_reach_are_in_metres():
    xyz = np.array([[0, 0, 0], [0, 0, 3], [0, 0, 5]], float)
    found = surroundings(xyz, (3,))
    assert found[:, NAMES.index("below")].tolist() == [5, 2, 0]
    assert found[:, NAMES.index("above")].tolist() == [0, 3, 5]
    assert found[:, NAMES.index("reach")].tolist() == [5, 3, 5]


def test_turning_and_moving_a_cloud_changes_nothing():
    xyz = spread((3, 2, 1))
    cos, sin = np.cos(1.0), np.sin(1.0)
    turned = xyz @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [100, -50, 7]
    np.testing.assert_allclose(surroundings(turned, (8, 32)), surroundings(xyz, (8, 32)), atol=1e-3)


def test_a_small_cloud_has_all_its_points_as_neighbours():
    assert surroundings(spread((1, 1, 1))[:5], (8, 32)).shape == (5, 16)
    assert np.isfinite(surroundings(np.zeros((1, 3)), (8,))).all()


def test_too_few_neighbours_are_refused():
    with pytest.raises(InputError, match="at least 3"):
        surroundings(np.zeros((9, 3)), (2,))


def test_points_load_with_what_surrounds_them():
    adapter = Points(64, low=(-9, -9, -9), high=(9, 9, 9), features=("intensity",), neighbours=(8,))
    cloud = np.column_stack([spread((1, 1, 1))[:40], np.arange(40.0)])
    raw, mask = adapter.load(cloud)
    assert raw.shape == (64, 12) == adapter.example(1).shape[1:]
    assert mask.sum() == 40
    np.testing.assert_allclose(raw[:40, 4:], surroundings(cloud[:, :3], (8,)), atol=1e-6)
