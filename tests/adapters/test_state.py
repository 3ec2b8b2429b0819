import numpy as np
import pytest

import perceiver as p
from perceiver.errors import ConfigError, InputError
from tests.models import built, check_masked_elements_do_not_matter, close, encoding

SMALL = p.State(3, history=4, project=5, position=p.Learned(width=2), mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0))
STEPS = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)


def test_tokens_are_standardised_steps_then_positions():
    plain = p.State(3, history=4, project=None, mean=SMALL.mean, std=SMALL.std)
    values = built(plain)(STEPS).values
    assert values.shape == (2, 4, plain.channels) == (2, 4, 3 + 16)
    close(values[..., :3], (STEPS - np.array([1, 2, 3])) / np.array([1, 2, 4]), 1e-6)
    assert built(SMALL)(STEPS).values.shape == (2, SMALL.tokens, SMALL.channels) == (2, 4, 7)


def test_each_step_has_its_own_position():
    module = built(SMALL)
    np.testing.assert_array_equal(module(STEPS).values[1, :, 5:], module.embed.position.table[...])


def test_padding_does_not_matter():
    encode, _ = encoding(SMALL)
    close(encode(STEPS, np.broadcast_to(np.arange(4) < 2, (2, 4))), encode(STEPS[:, :2]))


def test_what_a_mask_hides_does_not_matter():
    check_masked_elements_do_not_matter(SMALL, STEPS, np.arange(4) < np.array([[3], [1]]), np.nan)
    check_masked_elements_do_not_matter(SMALL, STEPS, np.array([True, False]), np.inf)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 5, 3), np.float32), "at most 4 time steps, got 5"),
        (np.zeros((2, 4, 2), np.float32), r"shape \(b, t, 3\), got \(2, 4, 2\)"),
        (np.zeros((2, 4, 3), bool), "got dtype bool"),
    ],
)
def test_what_does_not_fit_is_refused(raw, message):
    module = built(SMALL)
    with pytest.raises(InputError, match=message):
        module(raw)


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0 and 1"):
        p.State(0)
    with pytest.raises(ConfigError, match="expected 3 means and deviations, got 1 and 1"):
        p.State(3, mean=(0.0,), std=(1.0,))


def test_vectors_are_padded_to_the_history():
    for source, count in (([1, 2, 3], 1), (STEPS[0, :2], 2), (STEPS[0], 4)):
        vectors, mask = SMALL.load(source)
        np.testing.assert_array_equal(vectors[:count], np.atleast_2d(np.float32(source)))
        np.testing.assert_array_equal(vectors[count:], 0)
        np.testing.assert_array_equal(mask, np.arange(4) < count)
        assert vectors.shape == SMALL.example(1).shape[1:]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((5, 3)), "at most 4 time steps, got 5"),
        ([1.0, 2.0], r"shape \(t, 3\), got \(1, 2\)"),
        ([1.0, np.inf, 2.0], "finite numbers, got inf"),
        ("front.csv", "expected an array, got str"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)
