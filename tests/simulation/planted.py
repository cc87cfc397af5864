"""Faults that are put into the product on purpose: does the simulation find each of them?

forget race     a commit and a publication read no marks: what was forgotten comes back
commit order    the record is written before what it names
lease           who slept goes on as if nobody had passed it over
gc too eager    younger objects and living drivers are not spared
review          of two people who save one picture, the later covers the earlier
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from maskmill.storage.care import forget, garbage
from maskmill.storage.dataset import columns, generations, saves
from maskmill.storage.drivers.lease import Lease
from maskmill.storage.shards.shards import Sample, WrittenObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.shard import column_writer, turn

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """One of them, and actors among whom it does harm."""

    plant: Callable[[Patch], None]
    kinds: tuple[str, ...]


def _forget_race(patch: Patch) -> None:
    for module in (columns, turn):
        patch.setattr(module, "marks_of", lambda store, shard: frozenset())
    patch.setattr(generations, "refuse_forgotten", lambda store, rows: None)
    patch.setattr(forget, "_refuse_company", lambda *args: None)


def _commit_order(patch: Patch) -> None:
    """What a shard holds is kept back until its record is written."""
    kept_back: dict[str, tuple[ObjectStore, bytes]] = {}
    write, commit = column_writer.write_shard, columns.ColumnVersion.commit

    def write_later(store: Any, name: str, samples: Iterator[Sample]) -> WrittenObject:
        written = write(store, name, samples)
        kept_back[name] = (store, store._objects.pop(name)[0])
        return written

    def commit_first(version: columns.ColumnVersion, record: Any) -> Any:
        made = commit(version, record)
        if found := kept_back.pop(record.data.name, None):
            found[0].put(record.data.name, found[1])
        return made

    patch.setattr(column_writer, "write_shard", write_later)
    patch.setattr(columns, "check_size", lambda store, written: None)
    patch.setattr(columns.ColumnVersion, "commit", commit_first)


def _lease(patch: Patch) -> None:
    patch.setattr(Lease, "is_lost", property(lambda lease: False))


def _gc_too_eager(patch: Patch) -> None:
    patch.setattr(garbage, "others", lambda store, own_id=None: [])
    patch.setattr(garbage, "store_clock", lambda store: lambda: 1e12)


def _review(patch: Patch) -> None:
    """The number is chosen before, and the record put whatever is there."""

    class Overwriting:
        def __init__(self, store: ObjectStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def put_if_absent(self, name: str, data: bytes) -> bool:
            self._store.put(name, data)
            return True

    put = saves.put_save
    patch.setattr(
        "maskmill.workers.reviews.keep.put_save",
        lambda store, save: put(Overwriting(store), save),  # type: ignore[arg-type]
    )


FAULTS: Mapping[str, Fault] = {
    "forget race": Fault(_forget_race, ("generate", "forget", "generate")),
    "commit order": Fault(_commit_order, ("generate", "generate", "relabel")),
    "lease": Fault(_lease, ("relabel", "gc", "repair", "forget")),
    "gc too eager": Fault(_gc_too_eager, ("generate", "gc", "generate", "gc versions")),
    "review": Fault(_review, ("review", "review", "review", "generate")),
}


@contextmanager
def planted(name: str) -> Iterator[Fault]:
    """Inside, the product has this fault."""
    with pytest.MonkeyPatch.context() as patch:
        FAULTS[name].plant(patch)
        yield FAULTS[name]
