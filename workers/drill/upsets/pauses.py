"""Processes that are stopped and go on a while later, as suspended machines and starved containers do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

SHORT_S, LONG_S = 2.0, 14.0
"""Within a lease, and beyond the eleven seconds after which others count a driver as dead (clocks.py)."""


class Pauses:
    """The processes that sleep now.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[int, float] = {}

    def stop(self, pid: int, seconds: float) -> bool:
        """Stops a process for so long. False if it sleeps already, or is gone."""
        if pid in self._ends:
            return False
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:
            return False
        self._ends[pid] = self._clock() + seconds
        return True

    def sleeps(self, pid: int) -> bool:
        """Whether it was stopped and not woken yet."""
        return pid in self._ends

    def wake(self, *, all_of_them: bool = False) -> None:
        """Lets those go on whose time is over."""
        for pid, end in list(self._ends.items()):
            if all_of_them or self._clock() >= end:
                del self._ends[pid]
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
