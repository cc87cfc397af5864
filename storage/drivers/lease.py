"""A driver's heartbeat: who works on a dataset right now.

    drivers/<driver id>.json        rewritten every few seconds, removed at the end

Correctness never depends on it: commits are decided by put-if-absent. It tells people who else is running,
and garbage collection what to spare. A driver that died is taken for alive until its last beat is old.

It does not know: clocks that differ by more than a minute between machines.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType

from maskmill.storage.errors import ObjectNotFound, StorageError
from maskmill.storage.json_text import from_json, load_object
from maskmill.storage.stores.base import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "drivers"
INTERVAL_S = 15.0
MISSED_BEATS = 5  # after so many a driver counts as dead
CLOCK_SKEW_S = 60.0


@dataclass(frozen=True)
class DriverInfo:
    """A running driver.

    Attributes:
        driver_id: unique.
        owner: what it is, e.g. "generate".
        host, pid: where it runs.
        started_utc: ISO 8601.
        beat_s: its last beat, seconds since 1970 by its own clock.
        interval_s: between beats.
    """

    driver_id: str
    owner: str
    host: str
    pid: int
    started_utc: str
    beat_s: float
    interval_s: float


class Lease:
    """A heartbeat while the context lasts. A beat that fails is logged and tried again."""

    def __init__(self, store: ObjectStore, owner: str, interval_s: float, clock: Callable[[], float]) -> None:
        self._store, self._owner, self._interval_s, self._clock = store, owner, interval_s, clock
        self.driver_id = uuid.uuid4().hex[:16]
        self._started_s = clock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Lease:
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._store.delete(self._name())
        except StorageError as exc:
            log.warning("heartbeat not removed, it will expire: %s", exc)

    def _name(self) -> str:
        return f"{FOLDER}/{self.driver_id}.json"

    def _beat(self) -> None:
        started_utc = datetime.fromtimestamp(self._started_s, UTC).isoformat(timespec="seconds")
        info = DriverInfo(
            self.driver_id,
            self._owner,
            socket.gethostname(),
            os.getpid(),
            started_utc,
            self._clock(),
            self._interval_s,
        )
        self._store.put(self._name(), (json.dumps(asdict(info), sort_keys=True) + "\n").encode())

    def _beat_on(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self._beat()
            except StorageError as exc:
                log.warning("heartbeat failed, trying again: %s", exc)


def announce(
    store: ObjectStore,
    owner: str,
    *,
    interval_s: float = INTERVAL_S,
    clock: Callable[[], float] = time.time,
) -> Lease:
    """A heartbeat for this process, to be entered as a context.

    Raises (on entering):
        StorageError: the first beat cannot be written.
    """
    return Lease(store, owner, interval_s, clock)


def others(
    store: ObjectStore, *, own_id: str | None = None, clock: Callable[[], float] = time.time
) -> list[DriverInfo]:
    """The drivers that are alive, but `own_id`, by start."""
    alive = []
    for found in list(store.list(f"{FOLDER}/")):
        if not found.name.endswith(".json"):
            continue
        try:
            info = from_json(DriverInfo, load_object(store.read(found.name)))
        except ObjectNotFound:
            continue  # ended since
        except ValueError as exc:
            log.warning("%s/%s is no heartbeat: %s", store.root, found.name, exc)
            continue
        fresh = clock() - info.beat_s <= MISSED_BEATS * info.interval_s + CLOCK_SKEW_S
        if fresh and info.driver_id != own_id:
            alive.append(info)
    return sorted(alive, key=lambda info: info.started_utc)


def process_lives(pid: int) -> bool:
    """Whether a process of this machine runs, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
