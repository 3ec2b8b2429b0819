import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver.objectives import absolute_error, accuracy, cross_entropy, squared_error


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes():
    assert float(cross_entropy(jnp.zeros((3, 7)), jnp.arange(3))) == pytest.approx(np.log(7), rel=1e-6)


def test_smoothing_spreads_probability_over_all_classes():
    logits = jnp.asarray([[2.0, 0.0, -1.0]])
    logp = np.asarray(jax.nn.log_softmax(logits))[0]
    expected = -(0.9 * logp[0] + 0.1 * logp.mean())
    assert float(cross_entropy(logits, jnp.asarray([0]), smoothing=0.1)) == pytest.approx(expected, rel=1e-5)


def test_shares_of_classes_count_as_their_part_of_each():
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    first, second = jnp.asarray([0, 1, 2, 0]), jnp.asarray([1, 1, 0, 2])
    shares = 0.75 * jax.nn.one_hot(first, 3) + 0.25 * jax.nn.one_hot(second, 3)
    expected = 0.75 * cross_entropy(logits, first, smoothing=0.1) + 0.25 * cross_entropy(logits, second, smoothing=0.1)
    assert float(cross_entropy(logits, shares, smoothing=0.1)) == pytest.approx(float(expected), rel=1e-6)


def test_weights_count_the_classes_that_a_label_has():
    logits, weights = jax.random.normal(jax.random.key(0), (4, 3)), jnp.asarray([1.0, 5.0, 0.0])
    labels = jnp.asarray([0, 1, 2, 0])
    losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(4), labels]
    expected = (losses * [1.0, 5.0, 0.0, 1.0]).sum() / 7.0
    assert float(cross_entropy(logits, labels, weights=weights)) == pytest.approx(expected, rel=1e-5)
    shares = jax.nn.one_hot(labels, 3)
    assert float(cross_entropy(logits, shares, weights=weights)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [cross_entropy, accuracy])
def test_masked_items_count_nothing(objective):
    logits = jax.random.normal(jax.random.key(0), (6, 4))
    labels = jnp.asarray([0, 1, 2, 3, 0, 1])
    mask = jnp.asarray([True, True, True, False, False, False])
    assert float(objective(logits, labels, mask)) == pytest.approx(float(objective(logits[:3], labels[:3])), rel=1e-6)
    assert objective(logits, labels, jnp.zeros(6, bool)) == 0.0


def test_errors_are_means_over_channels_and_kept_items():
    prediction, target = jnp.asarray([[1.0, 3.0], [9.0, 9.0]]), jnp.zeros((2, 2))
    mask = jnp.asarray([True, False])
    assert float(squared_error(prediction, target, mask)) == 5.0
    assert float(absolute_error(prediction, target, mask)) == 2.0
