import math

import numpy as np
import pytest

from perceiver import InputError
from perceiver.control.latency import Latency


def test_quantiles_are_at_most_one_bin_above_what_was_recorded():
    latency, taken = Latency(), np.random.default_rng(0).lognormal(-5.0, 1.0, 2000)
    for seconds in taken:
        latency.record(seconds)
    for share in (0.01, 0.5, 0.99, 1.0):
        exact = np.sort(taken)[math.ceil(share * 2000) - 1]
        assert exact <= latency.quantile(share) <= exact * 2 ** (1 / 16) * (1 + 1e-9)
    assert latency.quantile(1.0) == latency.longest == taken.max()
    assert latency.summary()["count"] == latency.count == 2000
    assert latency.summary()["max_ms"] == 1e3 * taken.max()


def test_what_lies_outside_counts_to_the_outermost_bins():
    latency = Latency()
    assert math.isnan(latency.quantile(0.5))
    for seconds in (0.0, 1e-9, 1e4):
        latency.record(seconds)
    assert (latency.counts[0], latency.counts[-1]) == (2, 1)
    assert latency.quantile(1.0) == 1e4
    for seconds in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="seconds: expected 0 or more"):
            latency.record(seconds)
    with pytest.raises(InputError, match="share: expected above 0"):
        latency.quantile(0.0)
    assert latency.count == 3
