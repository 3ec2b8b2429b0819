"""How long answers took: a histogram that stays small however long a robot runs."""

import math

import numpy as np

from perceiver.errors import InputError

_SHORTEST = 1e-5
_PER_DOUBLING = 16
_DOUBLINGS = 24


class Latency:
    """Counts of latencies in bins whose edges grow by 4.4 % each, from 10 microseconds to 168 seconds.

    What lies outside counts to the outermost bin; the longest is kept exactly. One thread records; any may read.

    Attributes:
        counts: int64 [384], latencies in each bin. edges: float64 [385], seconds.
        longest: seconds. misses: answers that came after their deadline.
    """

    def __init__(self) -> None:
        self.edges = _SHORTEST * 2.0 ** (np.arange(_DOUBLINGS * _PER_DOUBLING + 1) / _PER_DOUBLING)
        self.counts = np.zeros(len(self.edges) - 1, np.int64)
        self.longest = 0.0
        self.misses = 0

    @property
    def count(self) -> int:
        """Latencies recorded."""
        return int(self.counts.sum())

    def record(self, seconds: float) -> None:
        """Count one.

        Raises:
            InputError: not a number of seconds, 0 or more.
        """
        if not 0.0 <= seconds < math.inf:
            raise InputError(f"seconds: expected 0 or more, got {seconds}")
        place = int(_PER_DOUBLING * math.log2(max(seconds, _SHORTEST) / _SHORTEST))
        self.counts[min(place, len(self.counts) - 1)] += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the answers came, at most one bin too long; NaN where there is none.

        Raises:
            InputError: share is not in (0, 1].
        """
        if not 0.0 < share <= 1.0:
            raise InputError(f"share: expected above 0 and at most 1, got {share}")
        total = self.counts.cumsum()
        if not total[-1]:
            return math.nan
        place = int(np.searchsorted(total, math.ceil(share * total[-1])))
        return self.longest if place == len(self.counts) - 1 else min(float(self.edges[place + 1]), self.longest)

    def summary(self) -> dict[str, float]:
        """{"count", "p50_ms", "p99_ms", "max_ms", "misses"}."""
        p50, p99 = (1e3 * self.quantile(share) for share in (0.5, 0.99))
        return {
            "count": self.count,
            "p50_ms": p50,
            "p99_ms": p99,
            "max_ms": 1e3 * self.longest if self.count else math.nan,
            "misses": self.misses,
        }
