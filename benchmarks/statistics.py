"""From turns to figures: medians, the ratio of two sides round by round, and how much it varies."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Ours over theirs. value: median over rounds. low, high: quartiles over rounds. rounds: how many there were."""

    value: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in the ratio's own units."""
        return (self.high - self.low) / 2


def seconds(turns: Sequence[Sequence[float]]) -> float:
    """Median over turns of the median call."""
    return float(np.median([np.median(turn) for turn in turns]))


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Ratio:
    """Each round's ratio of medians, whose two turns ran one soon after the other, then the median of those."""
    count = min(len(ours), len(theirs))
    rounds = [float(np.median(ours[i]) / np.median(theirs[i])) for i in range(count)]
    low, value, high = np.quantile(rounds, [0.25, 0.5, 0.75])
    return Ratio(float(value), float(low), float(high), count)


def latency(turns: Sequence[Sequence[float]]) -> dict[str, float]:
    """Percentiles over all single calls, in seconds."""
    calls = np.concatenate([np.asarray(turn) for turn in turns])
    return {"p50": float(np.quantile(calls, 0.5)), "p99": float(np.quantile(calls, 0.99)), "calls": len(calls)}
