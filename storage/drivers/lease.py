"""A driver's heartbeat: who works on a dataset right now.

    drivers/<driver id>.json        rewritten every few seconds, removed at the end

Commits are decided by put-if-absent, whoever beats. The heartbeat tells people who else is running, garbage
collection what to spare, and `forget` whom to wait for. A driver that died is taken for alive until its last
beat is old. One that was suspended, or cut off from the store, for so long that others may count it as dead
stops before it writes: `check_lease` raises, and it never beats again.

No two machines' clocks are ever held against each other. A driver judges itself by a clock of its own that
nobody sets (store_time.py); others judge it by the store's times: of its last beat and of now.

It does not know: the store's time where the caller may not write to it; there the caller's own clock
stands in.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType

from maskmill.storage.drivers.store_time import FOLDER, steady_time, store_clock
from maskmill.storage.errors import LeaseLost, ObjectNotFound, StorageError
from maskmill.storage.json_text import from_json, load_object
from maskmill.storage.stores.base import ObjectInfo, ObjectStore

log = logging.getLogger(__name__)

INTERVAL_S = 15.0
MISSED_BEATS = 5  # after so many a driver counts as dead
SLACK_S = 60.0  # beyond what a driver itself waits: beats under way, coarse times of a store


@dataclass(frozen=True)
class DriverInfo:
    """A running driver.

    Attributes:
        driver_id: unique.
        owner: what it is, e.g. "generate".
        host, pid: where it runs.
        started_utc: ISO 8601, by its own clock; for people.
        beat_s: its last beat, seconds since 1970 by its own clock; only `begun_s` reads it.
        interval_s: between beats.
        seen_s: its last beat, seconds since 1970 at the store; as `others` finds it, never written.
    """

    driver_id: str
    owner: str
    host: str
    pid: int
    started_utc: str
    beat_s: float
    interval_s: float
    seen_s: float = 0.0

    @property
    def begun_s(self) -> float:
        """When it started, seconds since 1970 at the store: how long it ran is its own clock's to say."""
        return self.seen_s - (self.beat_s - datetime.fromisoformat(self.started_utc).timestamp())


class Lease:
    """A heartbeat while the context lasts. A beat that fails is logged and tried again.

    Silent for `MISSED_BEATS` intervals, whatever the reason, it is lost for good: the next beat may come late
    enough that somebody has acted on its absence.
    """

    def __init__(self, store: ObjectStore, owner: str, interval_s: float, clock: Callable[[], float]) -> None:
        self._store, self._owner, self._interval_s, self._clock = store, owner, interval_s, clock
        self.driver_id = uuid.uuid4().hex[:16]
        self._started_s = self._last_beat_s = clock()
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Lease:
        self.beat()
        _held.setdefault(self._store, []).append(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        _held[self._store].remove(self)
        if not _held[self._store]:
            del _held[self._store]  # or a store once written to is kept as long as the process
        try:
            self._store.delete(self._name())
        except StorageError as exc:
            log.warning("heartbeat not removed, it will expire: %s", exc)

    def _name(self) -> str:
        return f"{FOLDER}/{self.driver_id}.json"

    @property
    def is_lost(self) -> bool:
        """Whether others may count it as dead."""
        self._lost = self._lost or self._clock() - self._last_beat_s > MISSED_BEATS * self._interval_s
        return self._lost

    def check(self) -> None:
        """Raises LeaseLost if it is lost."""
        if self.is_lost:
            raise LeaseLost(
                f"{self._store.root}: this {self._owner} was silent for more than "
                f"{MISSED_BEATS * self._interval_s:g} s (suspended, or cut off from the store), so others "
                "may count it as dead; it stops before it writes: run the same command again, what is "
                "committed is kept"
            )

    def beat(self) -> None:
        """One beat, unless the lease is lost. Raises StorageError."""
        if self.is_lost:
            return
        now_s = self._clock()
        started_utc = datetime.fromtimestamp(self._started_s, UTC).isoformat(timespec="seconds")
        info = DriverInfo(
            self.driver_id,
            self._owner,
            socket.gethostname(),
            os.getpid(),
            started_utc,
            now_s,
            self._interval_s,
        )
        fields = {name: value for name, value in vars(info).items() if name != "seen_s"}
        self._store.put(self._name(), (json.dumps(fields, sort_keys=True) + "\n").encode())
        self._last_beat_s = now_s

    def _beat_on(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self.beat()
            except StorageError as exc:
                log.warning("heartbeat failed, trying again: %s", exc)


_held: dict[ObjectStore, list[Lease]] = {}
"""The leases of this process, by dataset."""


def check_lease(store: ObjectStore) -> None:
    """To be called before what counts is written to a dataset; passes where this process has no lease of it.

    Raises:
        LeaseLost: others may count this driver as dead.
    """
    for lease in tuple(_held.get(store, ())):
        lease.check()


def own_id(store: ObjectStore) -> str | None:
    """The driver id of this process's heartbeat at a dataset; None where it has none."""
    leases = _held.get(store)
    return leases[-1].driver_id if leases else None


def announce(
    store: ObjectStore,
    owner: str,
    *,
    interval_s: float = INTERVAL_S,
    clock: Callable[[], float] = steady_time,
) -> Lease:
    """A heartbeat for this process, to be entered as a context.

    Raises (on entering):
        StorageError: the first beat cannot be written.
    """
    return Lease(store, owner, interval_s, clock)


def others(store: ObjectStore, *, own_id: str | None = None) -> list[DriverInfo]:
    """The drivers that are alive, by start.

    Args:
        store: the dataset.
        own_id: the caller's own, left out; its last beat then says what time it is at the store. A caller
            without one asks the store, if there is anybody to judge.

    Raises:
        StorageError: the store cannot be read.
    """
    listed = [found for found in store.list(f"{FOLDER}/") if found.name.endswith(".json")]
    own = next((found for found in listed if own_id and found.name == f"{FOLDER}/{own_id}.json"), None)
    rest = [found for found in listed if found is not own]
    if not rest:
        return []

    now_s = own.modified_s if own is not None else store_clock(store)()
    found = [info for one in rest if (info := _read(store, one)) is not None]
    alive = [info for info in found if now_s - info.seen_s <= _patience_s(info)]
    return sorted(alive, key=lambda info: info.started_utc)


def _read(store: ObjectStore, beat: ObjectInfo) -> DriverInfo | None:
    """What a heartbeat says; None where its driver has ended since, or it is none."""
    try:
        info = from_json(DriverInfo, load_object(store.read(beat.name)))
    except ObjectNotFound:
        return None
    except ValueError as exc:
        log.warning("%s/%s is no heartbeat: %s", store.root, beat.name, exc)
        return None
    return replace(info, seen_s=beat.modified_s)


def _patience_s(info: DriverInfo) -> float:
    """Longer than the driver itself waits, so that it has stopped by then."""
    return MISSED_BEATS * info.interval_s + SLACK_S


def process_lives(pid: int) -> bool:
    """Whether a process of this machine runs, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
