import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver.decoders import NoisyActions
from perceiver.errors import ConfigError, InputError
from tests.models import close, filled

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 8)), jnp.float32)


def module(config, *arguments):
    return filled(lambda rngs: config.build(*arguments, dtype=jnp.dtype("float32"), rngs=rngs))


def test_bins_cover_the_range_and_what_is_outside_counts_to_the_last():
    head = p.BinnedChunk(3, 2, low=(-1.0, 0.0), high=(1.0, 4.0), bins=4)
    assert module(head, 8)(X, {}).shape == (2, 3, 2, 4)
    actions = jnp.array([[-1.0, 0.0], [-0.01, 1.99], [0.01, 2.01], [1.0, 4.0], [-9.0, 9.0]])
    np.testing.assert_array_equal(head.bins_of(actions), [[0, 0], [1, 1], [2, 2], [3, 3], [0, 3]])
    close(head.centres(jnp.array([[0, 3]])), [[-0.75, 3.5]])
    again = head.centres(head.bins_of(actions[:4]))
    assert np.abs(again - actions[:4]).max(axis=0).tolist() == pytest.approx([0.25, 0.5], abs=0.011)


def test_a_query_of_a_noisy_chunk_knows_all_of_it_and_the_time():
    query = module(NoisyActions(3, 2, width=8), 8, {})
    at = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 3, 3)), jnp.float32)
    before = query(2, at, {}).values
    assert before.shape == (2, 3, 8)
    for place in ((0, 2, 1), (0, 2, 2)):
        changed = np.abs(query(2, at.at[place].add(0.3), {}).values - before).max(axis=-1)
        assert (changed[0] > 1e-5).all()
        assert (changed[1] == 0).all()
    alone = module(NoisyActions(3, 2, width=8, depth=0), 8, {})
    moved = np.abs(alone(2, at.at[0, 2, 1].add(0.3), {}).values - alone(2, at, {}).values).max(axis=-1)
    assert (moved[0] > 1e-5).tolist() == [False, False, True]


@pytest.mark.parametrize("at", [None, np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 3), np.int32)])
def test_a_flow_wants_a_whole_noisy_chunk(at):
    with pytest.raises(InputError, match=r"expected noisy actions and the flow's time, floating \(2, 3, 3\)"):
        module(NoisyActions(3, 2, width=8), 8, {})(2, at, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: p.BinnedChunk(0, 1, (0.0,), (1.0,)), "BinnedChunk needs a horizon and dims of at least 1"),
        (lambda: p.BinnedChunk(2, 2, (0.0, 0.0), (1.0, 0.0)), "expected 2 pairs of low < high"),
        (lambda: p.BinnedChunk(2, 1, (0.0,), (1.0,), bins=1), "bins must be at least 2, got 1"),
        (lambda: p.FlowChunk(2, 1, steps=0), "expected steps above 0 and a depth, got 0 and 1"),
        (lambda: p.FlowChunk(2, 1, temperature=-1.0), "temperature: expected a deviation, 0 or more, got -1.0"),
        (lambda: p.FlowChunk(2, 1, mean=(0.0,), std=(0.0,)), "above 0"),
        (lambda: p.Pooled(p.FlowChunk(2, 1)), "Pooled gives one answer, and FlowChunk has one for each of several"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
