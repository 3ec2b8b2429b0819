"""What a family of reference cases hands to the suite."""

from typing import NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """One array of ours beside the reference's.

    tolerance: of the largest absolute difference, relative to max(1, largest absolute reference value).
    """

    what: str
    ours: np.ndarray
    theirs: np.ndarray
    tolerance: float = 1e-5

    @property
    def error(self) -> float:
        """Largest absolute difference over max(1, largest absolute reference value)."""
        ours, theirs = np.asarray(self.ours, np.float64), np.asarray(self.theirs, np.float64)
        if ours.shape != theirs.shape:
            raise AssertionError(f"{self.what}: shape {ours.shape}, the reference has {theirs.shape}")
        if not theirs.size:
            return 0.0
        return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))
