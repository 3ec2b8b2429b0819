import numpy as np
import pytest

from perceiver import InputError
from perceiver.augment import cutmix, mixup


def rng(seed=0):
    return np.random.default_rng(seed)


def pair():
    return np.full((6, 8, 3), 200, np.uint8), np.zeros((6, 8, 3), np.uint8)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_weights_sum_to_one_and_say_what_is_in_the_mixture(mix):
    a, b = pair()
    shares = []
    for seed in range(50):
        mixed, weights = mix(a, b, rng(seed), alpha=1.0)
        assert (mixed.dtype, mixed.shape, weights.dtype) == (a.dtype, a.shape, np.float32)
        assert weights.sum() == pytest.approx(1.0, abs=1e-6)
        assert mixed.mean() / 200 == pytest.approx(weights[0], abs=0.003)
        assert np.array_equal(mixed, mix(a, b, rng(seed), alpha=1.0)[0])
        shares.append(weights[0])
    assert min(shares) < 0.3  # a rectangle that an edge cuts is smaller
    assert max(shares) > 0.8
    assert (a.min(), b.max()) == (200, 0)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_without_strength_the_first_stays_and_unlike_samples_are_refused(mix):
    a, b = pair()
    mixed, weights = mix(a, b, rng(), alpha=0.0)
    assert np.array_equal(mixed, a)
    assert weights.tolist() == [1.0, 0.0]
    with pytest.raises(InputError, match="alike"):
        mix(a, b[:3], rng())
    with pytest.raises(InputError, match="alike"):
        mix(a, b.astype(np.float32), rng())


def test_cutmix_takes_a_rectangle_at_the_same_place():
    a, b = rng(1).random((9, 9, 2)), rng(2).random((9, 9, 2)) + 1
    mixed, weights = cutmix(a, b, rng(3))
    taken = mixed[..., 0] >= 1
    assert np.array_equal(mixed, np.where(taken[..., None], b, a))
    assert taken.sum() == taken.any(axis=0).sum() * taken.any(axis=1).sum() == round(81 * float(weights[1]))


def test_mixup_of_waveforms_stays_float():
    mixed, weights = mixup(np.ones(5, np.float32), np.zeros(5, np.float32), rng())
    assert mixed.dtype == np.float32
    assert np.allclose(mixed, weights[0])
