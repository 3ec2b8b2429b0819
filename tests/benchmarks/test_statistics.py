import pytest

from benchmarks import statistics


def test_the_ratio_is_taken_round_by_round():
    # The machine got twice as slow half way; the ratio never changed.
    ours, theirs = [[1.0], [1.0], [2.0], [2.0]], [[2.0], [2.0], [4.0], [4.0]]
    found = statistics.ratio(ours, theirs)
    assert found == statistics.Ratio(0.5, 0.5, 0.5, 4)
    assert found.spread == 0.0


def test_spread_is_half_the_distance_of_the_quartiles():
    found = statistics.ratio([[1.0], [2.0], [3.0], [4.0], [5.0]], [[1.0]] * 5)
    assert (found.low, found.value, found.high) == (2.0, 3.0, 4.0)
    assert found.spread == 1.0


def test_a_turn_counts_by_its_median_call():
    assert statistics.seconds([[1.0, 1.0, 90.0], [3.0], [2.0]]) == 2.0


def test_latency_takes_all_calls_together():
    found = statistics.latency([[0.1] * 98, [0.5, 0.9]])
    assert found["p50"] == pytest.approx(0.1)
    assert 0.4 < found["p99"] <= 0.9
    assert found["calls"] == 100
