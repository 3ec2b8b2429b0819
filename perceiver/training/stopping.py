"""SIGTERM and Ctrl-C end a run at its next step, saved: cluster managers send the first before they take a machine."""

import signal
from types import FrameType
from typing import Any


class Stopping:
    """While entered, the first SIGTERM or SIGINT is noted, so that the run can go on to its step's end; a second one is
    acted upon at once, as it would be otherwise.

    Only a process's main thread can take signals; elsewhere nothing changes.

    signal: the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        for each, handler in self._before.items():  # from now on as before
            signal.signal(each, handler)
