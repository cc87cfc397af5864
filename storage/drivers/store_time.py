"""What time it is: at a store, and on a clock of this machine's that nobody sets.

Ages of what lies in a store are differences of the store's own times. Who has just written there knows the
time from that; who has not writes a small object, looks at it and removes it. How long this process slept is
told by a clock that runs on while the machine sleeps and that no time server moves.

It does not know: the time of a store that the caller may only read: its own clock stands in, and a log line
says so.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from functools import cache

from maskmill.storage.errors import AccessDenied, ObjectNotFound, OutOfSpace
from maskmill.storage.stores.base import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "drivers"


def steady_time() -> float:
    """Seconds since 1970 as this machine said once, and what has passed since, asleep or not: no jumps."""
    return _began_s() + _running_s()


@cache
def _began_s() -> float:
    return time.time() - _running_s()


def _running_s() -> float:
    """Since the machine started, its sleep included where the system says so."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def store_clock(store: ObjectStore) -> Callable[[], float]:
    """A clock that runs as the store's: its own time is on what is written to it.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    name = f"{FOLDER}/probe-{uuid.uuid4().hex}"
    try:
        store.put(name, b"what time is it?\n")
        ahead_s = store.stat(name).modified_s - steady_time()
        store.delete(name)
    except (AccessDenied, OutOfSpace, ObjectNotFound) as exc:
        log.info("the time at %s is not known, this machine's stands in: %s", store.root, exc)
        return time.time
    return lambda: steady_time() + ahead_s
