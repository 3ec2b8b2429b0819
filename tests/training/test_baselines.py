import math

import numpy as np
import pytest

from perceiver.training.baselines import Runs, compressed_nats


def test_runs_of_bytes_by_hand():
    runs = Runs.counted(b"abab", 1)
    # Of 4 bytes, 2 kinds: a is (2 + 2 / 256) / 6. Behind an a, followed twice by one kind: b is (2 + that of b) / 3.
    alone = (2 + 2 / 256) / 6
    np.testing.assert_allclose(np.exp(-runs.nats(b"ab", 1)), [alone, (2 + alone) / 3])
    np.testing.assert_allclose(np.exp(-runs.nats(b"zb", 1)), [2 / 256 / 6, alone])  # z was never there


@pytest.mark.parametrize("before", [b"", b"a", b"xab"])
def test_the_shares_of_all_bytes_are_one(before):
    runs = Runs.counted(b"abracadabra", 2)
    shares = [math.exp(-runs.nats(before + bytes([last]), 2)[-1]) for last in range(256)]
    assert sum(shares) == pytest.approx(1.0)


def test_a_text_that_is_known_takes_little():
    rng = np.random.default_rng(0)
    known, other = (bytes(rng.integers(0, 256, 4000).astype(np.uint8)) for _ in range(2))
    assert compressed_nats(known, known[1000:3000]) < 0.3
    assert compressed_nats(known, other) == pytest.approx(8 * math.log(2), rel=0.05)
