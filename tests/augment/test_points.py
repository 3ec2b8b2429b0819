import numpy as np
import pytest

from perceiver.augment import (
    crop_range,
    drop,
    jitter,
    keep_within,
    mirror,
    scale,
    shift,
    turn_about_vertical,
    yaw,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def cloud(count=40):
    return rng(9).normal(size=(count, 5)).astype(np.float32)


ALL = {
    "turn_about_vertical": turn_about_vertical,
    "yaw": lambda points, rng: yaw(points, rng, degrees=20),
    "mirror": mirror,
    "scale": lambda points, rng: scale(points, rng, 0.1),
    "shift": lambda points, rng: shift(points, rng, metres=(1.0, 1.0, 0.1)),
    "jitter": lambda points, rng: jitter(points, rng, 0.1, most=0.2),
    "drop": lambda points, rng: drop(points, rng, 0.9),
    "crop_range": lambda points, rng: crop_range(points, rng, nearest=0.5, farthest=2.0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ALL)
def test_the_change_comes_from_the_generator_alone_and_features_and_input_stay(name, dtype):
    points = cloud().astype(dtype)
    points.flags.writeable = False
    answers = [[ALL[name](points, rng(seed)) for seed in range(6)] for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
    assert len({answer.tobytes() for answer in answers[0]}) > 1
    for answer in answers[0]:
        assert answer.dtype == dtype
        assert np.isin(answer[:, 3], points[:, 3]).all()
        if len(answer) == len(points):
            assert np.array_equal(answer[:, 3:], points[:, 3:])


def test_no_strength_is_no_change():
    points = cloud()
    for same in (
        yaw(points, rng(), degrees=0),
        mirror(points, rng(), chance=0.0),
        scale(points, rng(), 0.0),
        shift(points, rng(), metres=0.0),
        jitter(points, rng(), 0.0, most=1.0),
        drop(points, rng(), 0.0),
        crop_range(points, rng(), nearest=99.0, farthest=99.0),
        keep_within(points, 99.0),
    ):
        assert np.array_equal(same, points)


@pytest.mark.parametrize("turn", [turn_about_vertical, lambda p, r: yaw(p, r, degrees=90)])
def test_turning_a_cloud_keeps_distances_heights_and_features(turn):
    points = cloud()
    turned = turn(points, rng(1))
    assert np.allclose(turned[:, 2:], points[:, 2:])
    assert np.linalg.norm(turned[:, :2], axis=1) == pytest.approx(np.linalg.norm(points[:, :2], axis=1), rel=1e-5)
    assert not np.allclose(turned[:, :2], points[:, :2])


def test_yaw_stays_within_its_bound_and_never_mirrors():
    ahead = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    turned = np.array([yaw(ahead, rng(seed), degrees=30) for seed in range(60)])
    angles = np.degrees(np.arctan2(turned[:, 0, 1], turned[:, 0, 0]))
    assert -30 <= angles.min() < -20
    assert 20 < angles.max() <= 30
    assert np.linalg.det(turned[:, :, :2]) == pytest.approx(1.0)


def test_bounds_of_scale_shift_and_jitter():
    points = cloud()
    for seed in range(30):
        factors = scale(points, rng(seed), 0.2)[:, :3] / points[:, :3]
        assert np.allclose(factors, factors[0, 0], rtol=1e-4)
        assert 0.799 < factors.min() <= factors.max() < 1.201
        moved = shift(points, rng(seed), metres=(2.0, 0.0, 0.5))[:, :3] - points[:, :3]
        assert np.allclose(moved, moved[0], atol=1e-5)
        assert (np.abs(moved).max(axis=0) <= np.array([2.0, 0.0, 0.5]) + 1e-5).all()
    shaken = jitter(cloud(2000), rng(), 0.1, most=0.15)[:, :3] - cloud(2000)[:, :3]
    assert np.abs(shaken).max() == pytest.approx(0.15, abs=1e-5)
    assert 0.07 < shaken.std() < 0.1
    assert np.abs(jitter(cloud(2000), rng(), 0.1)[:, :3] - cloud(2000)[:, :3]).max() == pytest.approx(0.3, abs=1e-5)


def test_mirroring_changes_signs_of_the_axes_asked_for():
    points = cloud()
    mirrored = [mirror(points, rng(seed), axes=(0, 1)) for seed in range(100)]
    signs = {tuple(np.sign(own[0, :3] / points[0, :3]).astype(int)) for own in mirrored}
    assert signs == {(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1)}
    assert np.array_equal(mirror(points, rng(), chance=1.0)[:, 1], -points[:, 1])


def test_a_random_share_is_dropped_and_one_point_at_least_stays():
    counts = [len(drop(cloud(100), rng(seed), 0.5)) for seed in range(100)]
    assert 50 <= min(counts) < 55
    assert 95 < max(counts) <= 100
    assert min(len(drop(cloud(3), rng(seed), 1.0)) for seed in range(50)) == 1
    kept = drop(cloud(), rng(1), 0.9)[:, 3]
    assert list(kept) == [value for value in cloud()[:, 3] if value in kept]  # the old order


def test_a_shorter_reach_keeps_what_is_near():
    points = np.zeros((100, 4))
    points[:, 0] = np.arange(1, 101)
    reaches = [crop_range(points, rng(seed), nearest=20, farthest=60)[:, 0] for seed in range(60)]
    assert all(np.array_equal(own, np.arange(1, len(own) + 1)) for own in reaches)
    assert 20 <= min(map(len, reaches)) < 25
    assert 55 < max(map(len, reaches)) <= 60
    assert len(crop_range(points, rng(), nearest=0.0, farthest=0.5)) == 1
    assert keep_within(points, 30.0)[:, 0].max() == 30
    assert keep_within(points, 0.5).shape == (0, 4)


def test_an_empty_cloud_stays_empty():
    for change in ALL.values():
        assert change(np.zeros((0, 4), np.float32), rng()).shape == (0, 4)
