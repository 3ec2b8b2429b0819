"""SIGTERM and Ctrl-C end a run at its next step, saved: cluster managers send the first before they take a machine."""

import signal
from types import FrameType
from typing import Any

import jax


class Stopping:
    """While entered, the first SIGTERM or SIGINT is noted, so that the run can go on to its step's end; a second one is
    acted upon at once, as it would be otherwise.

    Only a process's main thread can take signals; elsewhere nothing changes. Where several processes share a run, JAX
    takes the SIGTERM that any of them gets, and makes all stop at the same step.

    signal: the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        for number in (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ():
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def after(self, step: int) -> bool:
        """Whether the run should end after this step, which all its processes ask of each step."""
        if jax.process_count() > 1 and self.signal is None:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self.signal = signal.SIGTERM
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        for each, handler in self._before.items():  # from now on as before
            signal.signal(each, handler)
