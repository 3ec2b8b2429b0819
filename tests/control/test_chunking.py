import numpy as np
import pytest

from perceiver import ConfigError, InputError
from perceiver.control.chunking import Chunks, Receding


def chunk(first, horizon=4):
    """Actions that say which step they are for, and from which chunk they are."""
    return np.stack([np.arange(first, first + horizon), np.full(horizon, first)], axis=1).astype(np.float32)


def test_a_late_chunk_goes_on_where_the_robot_is():
    chunks = Chunks()
    chunks.add(chunk(0), 0)
    assert [chunks.next().tolist() for _ in range(3)] == [[0, 0], [1, 0], [2, 0]]
    chunks.add(chunk(1), 1)  # two steps were done meanwhile
    assert chunks.left == 2
    assert chunks.next().tolist() == [3, 1]
    chunks.add(chunk(4), 4)
    chunks.add(chunk(2), 2)  # overtaken
    assert chunks.next().tolist() == [4, 4]
    chunks.reset()
    chunks.add(chunk(0, 1), 0)
    chunks.next()
    with pytest.raises(InputError, match="step 1: expected a chunk that reaches it, got none"):
        chunks.next()


def test_ensembling_weighs_the_oldest_most():
    chunks = Chunks(ensemble=0.5)
    for step in range(3):
        chunks.add(np.full((3, 1), 10.0 * step), step)
        done = chunks.next()
    weights = np.exp([0.0, -0.5, -1.0])
    np.testing.assert_allclose(done, [weights @ [0, 10, 20] / weights.sum()], rtol=1e-6)
    assert chunks.next() == pytest.approx((10 + 20 * np.exp(-0.5)) / (1 + np.exp(-0.5)))  # the first reaches no further


def test_what_does_not_fit_is_refused():
    chunks = Chunks()
    chunks.add(chunk(0), 0)
    for actions, step, message in [
        (np.zeros(3), 0, r"expected \[horizon, dims\], dims as before, got \[3\]"),
        (np.zeros((3, 5)), 0, r"dims as before, got \[3, 5\]"),
        (np.full((3, 2), np.nan), 0, "expected finite numbers"),
        (chunk(0), 1, "step: expected 0 to 0, the present one, got 1"),
    ]:
        with pytest.raises(InputError, match=message):
            chunks.add(actions, step)
    assert chunks.next().tolist() == [0, 0]
    with pytest.raises(ConfigError, match="ensemble: expected None, or 0 or more"):
        Chunks(-1.0)
    with pytest.raises(ConfigError, match="executed: expected at least 1"):
        Receding(Counting(), 0)


class Counting:
    def __init__(self):
        self.seen, self.asked, self.broken = 0, [], False

    def reset(self):
        self.seen, self.asked = 0, []

    def observe(self, obs):
        self.seen += 1

    def infer(self, obs):
        self.asked.append(self.seen)
        self.seen += 1
        actions = np.full((4, 2), -1.0) if self.broken else chunk(self.seen - 1)
        return {"actions": actions, "timing": {"total_ms": 1.0}, "fallback": "late" if self.broken else None}


@pytest.mark.parametrize(("executed", "asked"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0, 4])])
def test_a_receding_horizon_asks_every_few_steps_and_shows_every_observation(executed, asked):
    policy = Counting()
    robot = Receding(policy, executed)
    robot.reset()
    done = [robot.infer({})["actions"] for _ in range(5)]
    assert [action.shape for action in done] == [(1, 2)] * 5
    assert [action[0, 0] for action in done] == [0, 1, 2, 3, 4]
    assert policy.asked == asked
    assert policy.seen == 5


def test_a_fallback_is_done_as_it_is():
    policy = Counting()
    robot = Receding(policy, 1, ensemble=0.0)
    robot.reset()
    for _ in range(3):
        robot.infer({})
    policy.broken = True
    assert robot.infer({})["actions"].tolist() == [[-1, -1]]
