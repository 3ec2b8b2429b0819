"""Jumps of the loss, as opposed to its noise."""

import collections
import math

import numpy as np

EARLIER, LEAST = 20, 5
"""Reports that are looked back on, and how many there must be."""


class Spikes:
    """Tells of each mean loss that a run reports whether it is out of the ordinary.

    threshold: deviations above the median of the reports before that it takes; a deviation is 1.4826 times the median
        distance from that median, which is the standard deviation of normal numbers, and at least 1 % of the median.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._losses: collections.deque[float] = collections.deque(maxlen=EARLIER)

    @property
    def usual(self) -> float:
        """The median of the reports before."""
        return float(np.median(self._losses)) if self._losses else math.nan

    def is_one(self, loss: float) -> bool:
        """Whether this loss is a spike; one that is not is remembered. What is not finite is neither."""
        if not math.isfinite(loss):
            return False
        if len(self._losses) >= LEAST:
            median = self.usual
            deviation = 1.4826 * float(np.median(np.abs(np.array(self._losses) - median)))
            if loss > median + self.threshold * max(deviation, 0.01 * abs(median)):
                return True
        self._losses.append(loss)
        return False
