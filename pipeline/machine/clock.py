"""Seconds by the name of a step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class StepClock:
    """Seconds by the name of a step, summed.

    Attributes:
        seconds: name -> seconds so far.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a step, also where it ends in an error."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start_s)

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
