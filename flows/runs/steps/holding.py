"""Who works on a dataset while a run lasts: its one writer, a driver beside others, or a short guest.

    writing    the writer's lock: relabel, retrain, distill, loop, review, import, an audit, repair and gc;
               `forget` takes the same lock itself (storage/care/forget.py)
    driving    a heartbeat alone: generate and ingest, which may run beside anything
    visiting   a heartbeat for one small record: tag and promote, which must work beside a relabel of days

All three are seen by `forget`, garbage collection and `status`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maskmill.flows.report.report import watcher
from maskmill.storage.care.rewrite import settle_and_publish
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import list_generations, none_yet
from maskmill.storage.drivers import one_writer
from maskmill.storage.drivers.lease import announce, others
from maskmill.storage.plan.plan import has_plan
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore


@contextmanager
def writing(dataset: str, owner: str, *, wait_s: float = 0.0, makes: bool = False) -> Iterator[str]:
    """Is the dataset's one writer inside the block; gives the driver's id.

    Args:
        dataset: its root.
        owner: what this is, for whoever finds the dataset taken.
        wait_s: how long to wait for another writer, seconds; 0 refuses at once.
        makes: it may make the dataset; else one must be there, and a wrong path gets no lock written to it.

    Raises:
        NoSuchThing: no dataset is there.
        WriterBusy: another writer is at work, and still is after `wait_s`.
        LeaseLost: this process slept while it took its place, and others count it as dead.
        StorageError: the dataset cannot be written.
    """
    store = open_store(dataset) if makes else _there(dataset)
    with one_writer.writing(store, owner, wait_s=wait_s, waiting=watcher().note) as own_id:
        _settle(store)
        yield own_id


@contextmanager
def driving(dataset: str) -> Iterator[None]:
    """Announces this driver inside the block, once no collection is at work, and tells of others beside it.

    Raises:
        StorageError: the dataset cannot be written.
    """
    store = open_store(dataset)
    with announce(store, "generate") as lease:
        one_writer.await_collector(store, lease.driver_id, waiting=watcher().note)
        _settle(store)
        for driver in others(store, own_id=lease.driver_id):
            if (driver.owner, driver.host, driver.pid) == ("loop", socket.gethostname(), os.getpid()):
                continue  # this run is a step of it
            watcher().note(
                f"another run works on this dataset: {driver.owner} on {driver.host}, process {driver.pid}, "
                f"since {driver.started_utc}. This one goes on beside it, safely: each takes other shards, "
                "and one that both finish is kept once. Ctrl-C leaves it all to the other."
            )
        yield


@contextmanager
def visiting(dataset: str, owner: str) -> Iterator[ObjectStore]:
    """A heartbeat inside the block, for a small record that disturbs no writer; gives the dataset's store.

    Raises:
        NoSuchThing: no dataset is there; nothing is written to a wrong path.
        StorageError: the dataset cannot be written.
    """
    store = _there(dataset)
    with announce(store, owner):
        yield store


def _there(dataset: str) -> ObjectStore:
    store = open_store(dataset)
    if not (has_plan(store) or list_generations(store)):
        raise none_yet(store)
    return store


def _settle(store: ObjectStore) -> None:
    """Takes forgotten images out of what is in force, where a `forget` was refused and only marked them."""
    if not settle_and_publish(store, created_utc=now_utc()):
        watcher().note(
            "shards that hold forgotten images are damaged: they stay as they are until "
            f"`maskmill verify --repair {store.root}` has made them again"
        )
