"""One writer at a time: who may relabel, retrain, import, review or forget in a dataset now.

    locks/writer/000007.json     numbered put-if-absent records: the highest says who holds it, or nobody

Nothing breaks without it: commits and generations are decided by put-if-absent. It saves work: two relabels
side by side would do the same shards twice. A holder is a driver with a heartbeat (lease.py); one that died
frees its hold when its last beat is old, at once where it ran on this machine. Every command that writes
holds it, so that `forget` and garbage collection see it.

Garbage collection removes what others may be about to use again: who only has a heartbeat waits for it.

It does not know: `generate` and `ingest`, which have a heartbeat alone: they may run beside anything else.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from maskmill.storage.drivers.lease import (
    INTERVAL_S,
    DriverInfo,
    announce,
    check_lease,
    others,
    process_lives,
)
from maskmill.storage.drivers.store_time import steady_time
from maskmill.storage.errors import DamagedObject, ObjectNotFound, StorageError
from maskmill.storage.json_text import load_json
from maskmill.storage.stores.base import ObjectStore

FOLDER = "locks/writer"
POLL_S = 2.0
COLLECTOR = "gc"
NOBODY = ""


class WriterBusy(StorageError):
    """Another writer works on the dataset: says which, since when, and what to do.

    Attributes:
        holder: which and since when, a sentence.
    """

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder or message


@dataclass(frozen=True)
class Hold:
    """A record: `driver_id` holds the dataset, or nobody does (""); `taken_s` is seconds since 1970."""

    driver_id: str
    owner: str
    host: str
    pid: int
    taken_s: float


@contextmanager
def writing(
    store: ObjectStore,
    owner: str,
    *,
    wait_s: float = 0.0,
    waiting: Callable[[str], None] = lambda text: None,
    interval_s: float = INTERVAL_S,
    poll_s: float = POLL_S,
    clock: Callable[[], float] = steady_time,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Is the dataset's one writer inside the block; gives the driver's id.

    Args:
        store: the dataset.
        owner: what this is, e.g. "relabel".
        wait_s: how long to wait for another writer; 0 refuses at once.
        waiting: told once, in a sentence, that another writer is waited for.
        interval_s: between heartbeats.
        poll_s: between two looks while waiting.
        clock: seconds since 1970, of the heartbeat, the hold and the waiting.
        sleep: waits so many seconds.

    Raises:
        WriterBusy: another writer is at work, and still is after `wait_s`.
        LeaseLost: this process slept while it took its place, and others count it as dead.
    """
    with announce(store, owner, interval_s=interval_s, clock=clock) as lease:
        mine = Hold(lease.driver_id, owner, socket.gethostname(), os.getpid(), round(clock(), 3))
        deadline, told = clock() + wait_s, False
        while (holder := _try(store, mine)) is not None:
            if not told:
                told = True
                waiting(_sentence(store, holder))
            if clock() >= deadline:
                sentence = _sentence(store, holder)
                raise WriterBusy(
                    f"{sentence} Wait for it (--wait SECONDS), or stop it first; "
                    "a writer that died is passed over by itself within two minutes",
                    sentence,
                )
            sleep(min(poll_s, max(0.0, deadline - clock())))
        try:
            lease.check()  # who slept since its heartbeat holds a place that others pass over
            yield lease.driver_id
        finally:
            _release(store, mine, clock)


def await_collector(
    store: ObjectStore,
    own_id: str,
    *,
    waiting: Callable[[str], None] = lambda text: None,
    poll_s: float = POLL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until no garbage collection is at work: it may be removing what the caller would resume.

    Args:
        store: the dataset.
        own_id: the caller's heartbeat, which must have begun: a collection that starts later spares more.
        waiting: told once, in a sentence, what is waited for.
        poll_s: between two looks.
        sleep: waits so many seconds.

    Raises:
        LeaseLost: the caller slept meanwhile; by its own last beat it can no longer judge who else lives.
    """
    told = False
    while collectors := [
        one for one in others(store, own_id=own_id) if one.owner == COLLECTOR and may_live(one)
    ]:
        if not told:
            told = True
            where = f"{collectors[0].host}, process {collectors[0].pid}"
            waiting(f"`maskmill gc` on {where}, removes objects of this dataset; waiting until it is done")
        sleep(poll_s)
        check_lease(store)


def writer(store: ObjectStore) -> Hold | None:
    """Who holds the dataset now, None if nobody alive does."""
    number = max(_numbers(store), default=0)
    held = _read(store, number) if number else None
    return held if held is not None and _is_alive(store, held, None) else None


def _try(store: ObjectStore, mine: Hold) -> Hold | None:
    """Takes the hold; gives who has it if that fails."""
    number = max(_numbers(store), default=0)
    held = _read(store, number) if number else None
    if held is not None and _is_alive(store, held, mine.driver_id):
        return held
    data = (json.dumps(asdict(mine), sort_keys=True) + "\n").encode()
    if store.put_if_absent(_name(number + 1), data) and max(_numbers(store)) == number + 1:
        for old in _numbers(store):
            if old < number:  # one is left beside ours: a slow writer then finds its place taken
                store.delete(_name(old))
        return None
    return _try(store, mine)


def _release(store: ObjectStore, mine: Hold, clock: Callable[[], float]) -> None:
    number = max(_numbers(store), default=0)
    held = _read(store, number) if number else None
    if held is not None and held.driver_id == mine.driver_id:
        free = Hold(NOBODY, mine.owner, mine.host, mine.pid, round(clock(), 3))
        store.put_if_absent(_name(number + 1), (json.dumps(asdict(free), sort_keys=True) + "\n").encode())


def _is_alive(store: ObjectStore, held: Hold, own_id: str | None) -> bool:
    if held.driver_id == NOBODY:
        return False
    alive = {driver.driver_id: driver for driver in others(store, own_id=own_id)}
    return held.driver_id in alive and may_live(alive[held.driver_id])


def may_live(driver: DriverInfo) -> bool:
    """Whether it may still run: known for this machine, taken from the heartbeat elsewhere."""
    return driver.host != socket.gethostname() or process_lives(driver.pid)


def _sentence(store: ObjectStore, held: Hold) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(held.taken_s))
    return (
        f"{store.root}: {held.owner} on {held.host}, process {held.pid}, works on this dataset since "
        f"{since} UTC."
    )


def _numbers(store: ObjectStore) -> list[int]:
    stems = (info.name.rpartition("/")[2].removesuffix(".json") for info in store.list(f"{FOLDER}/"))
    return [int(stem) for stem in stems if stem.isdigit()]


def _read(store: ObjectStore, number: int) -> Hold | None:
    try:
        return Hold(**load_json(store.read(_name(number))))
    except ObjectNotFound:
        return None
    except (ValueError, TypeError) as exc:
        raise DamagedObject(f"{store.root}/{_name(number)}: not a readable hold ({exc})") from exc


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"
