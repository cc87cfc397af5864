"""Clocks that jump, and leases and ages short enough for a drill.

How it works: whoever asks this process what time it is may meet an order; from then on its clock is off by
the order's amount, for all that reads it in Python: `time.time`, and the dates of records and heartbeats.
Clocks that nobody sets (`time.monotonic`) run on as they do.

What it doesn't know: Ray's own processes, whose clocks are the machine's.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, tzinfo

from maskmill.storage import clock
from maskmill.storage.care import garbage
from maskmill.storage.drivers import lease, one_writer
from maskmill.workers.drill.orders import Orders
from maskmill.workers.drill.upsets.names import CLOCK_JUMP

JUMPS_S = (180.0, -180.0, 86_400.0, -86_400.0)
LOOK_S = 0.2

BEAT_S = 2.0
SLACK_S = 1.0
MIN_AGE_S = 2.0


class _Clock:
    """How far this process's clock is off."""

    def __init__(self, orders: Orders) -> None:
        self._orders, self._real = orders, time.time
        self._off_s, self._looked = 0.0, 0.0
        self._lock = threading.Lock()

    def off_s(self) -> float:
        """Seconds, after a look for an order."""
        now = time.monotonic()
        if now - self._looked > LOOK_S and self._lock.acquire(blocking=False):
            try:
                self._looked = now
                order = self._orders.take({CLOCK_JUMP})
                if order is not None:
                    self._off_s += JUMPS_S[order.number % len(JUMPS_S)]
            finally:
                self._lock.release()
        return self._off_s

    def time(self) -> float:
        """`time.time`, as this clock has it."""
        return self._real() + self.off_s()


def install(orders: Orders) -> None:
    """From now on this process's clock meets the orders, and its leases are short. Cannot be undone."""
    mine = _Clock(orders)

    class Shifted(datetime):
        """Dates by this clock."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Shifted:
            """See `datetime.now`."""
            return super().now(tz) + timedelta(seconds=mine.off_s())

    setattr(time, "time", mine.time)  # noqa: B010 - by name, as for os's in disk.py
    for module in (clock, lease):
        setattr(module, "datetime", Shifted)  # noqa: B010
    shorten_leases()


def shorten_leases() -> None:
    """Drivers beat every two seconds, count as dead after eleven; what lies about is collected after two."""
    for function, name, value in (
        (lease.announce, "interval_s", BEAT_S),
        (one_writer.writing.__wrapped__, "interval_s", BEAT_S),  # type: ignore[attr-defined]
        (garbage.find_garbage, "min_age_s", MIN_AGE_S),
    ):
        defaults = function.__kwdefaults__
        assert defaults is not None and name in defaults
        defaults[name] = value
    for module in (lease, garbage):
        setattr(module, "SLACK_S", SLACK_S)  # noqa: B010
