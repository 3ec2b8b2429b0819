"""A trace of some steps of a run: what the host and the device did, and when."""

from pathlib import Path
from typing import Any

import jax

WARM = 5
"""Steps that are left out before, among them the one that compiles."""


class Profile:
    """Traces `steps` steps into a folder; none where that is 0. docs/training.md says how to read it."""

    def __init__(self, folder: Path, steps: int):
        self._folder, self._first, self._behind = folder, WARM, WARM + steps
        self._wanted, self._running, self._number = steps > 0, False, 0

    def before_step(self, state: Any) -> None:
        """Begin or end as the next step asks for. state: what the last step gave, to be waited for."""
        if self._wanted and self._number == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        elif self._running and self._number == self._behind:
            self.end(state)
        self._number += 1

    def end(self, state: Any) -> None:
        """End a trace that is under way."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False
