import numpy as np
import pytest

from perceiver.augment import shift_and_turn, turn_about_vertical


def blob():
    image = np.zeros((9, 9, 2), np.uint8)
    image[3:6, 3:6] = 200
    return image


def test_nothing_to_change_changes_nothing():
    image = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    same = shift_and_turn(image, np.random.default_rng(0), shift=0, degrees=0, scale=0)
    assert np.array_equal(same, image)


def test_the_change_comes_from_the_generator_alone():
    bounds = {"shift": 2.0, "degrees": 30.0, "scale": 0.2}
    first, again, other = (shift_and_turn(blob(), np.random.default_rng(seed), **bounds) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == blob().shape
    assert first.dtype == np.uint8


def test_shifts_stay_within_their_bound_and_go_both_ways():
    rows, columns = np.mgrid[:9, :9]

    def centre(image):
        weight = image[..., 0].astype(float)
        return np.array([(rows * weight).sum(), (columns * weight).sum()]) / weight.sum() - 4

    moved = [centre(shift_and_turn(blob(), np.random.default_rng(s), shift=2, degrees=0, scale=0)) for s in range(50)]
    assert np.abs(moved).max() < 2.1
    assert np.min(moved) < -1
    assert np.max(moved) > 1


def test_turning_a_cloud_keeps_distances_heights_and_features():
    cloud = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    turned = turn_about_vertical(cloud, np.random.default_rng(1))
    assert np.allclose(turned[:, 2:], cloud[:, 2:])
    assert np.linalg.norm(turned[:, :2], axis=1) == pytest.approx(np.linalg.norm(cloud[:, :2], axis=1), rel=1e-5)
    assert not np.allclose(turned[:, :2], cloud[:, :2])
