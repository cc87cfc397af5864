"""What was checked when it was published is counted by its rows: the same sums, and none of it read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.care.verify import VerifyReport, verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, Publication, publish_over
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.merge import Committed, committed_rows, count_rejects, count_rows
from maskmill.storage.dataset.records import NOT_ANNOTATED, Reject
from maskmill.storage.dataset.row_set import RowSet
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from tests.storage.datasets import (
    CREATED,
    IMAGES,
    MASKS,
    commit,
    commit_images,
    commit_masks,
    make_dataset,
    mask_sample,
    plan_pictures,
    publish_all,
)

BOTH = {"images": IMAGES, "masks": MASKS}


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(tmp_path / "photos")


class Counting:
    """A store that notes whose records and objects are asked for."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.shards: set[int] = set()
        self.records: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def _note(self, name: str) -> None:
        if name.startswith(("images/", "masks/", "captions/")):
            self.shards.add(int(name.rpartition("/")[2][:6]))

    def read(self, name: str, *args: Any) -> bytes:
        self._note(name)
        if "/commits/" in name:
            self.records.append(name)
        return self.store.read(name, *args)

    def stat(self, name: str) -> Any:
        self._note(name)
        return self.store.stat(name)


def sums(report: VerifyReport) -> tuple[int, ...]:
    names = ("images", "annotated", "rejected", "missing", "duplicated", "damaged", "unannotated")
    return tuple(getattr(report, name) for name in names)


def test_a_sound_generation_is_counted_unread(local_store: ObjectStore, photos: str) -> None:
    known = make_dataset(local_store, photos)
    counting: Any = Counting(local_store)
    carried = verify(counting, known=known)
    assert counting.shards == set()
    assert carried == verify(local_store) and carried.ok
    assert sums(carried) == (12, 8, 4, 0, 0, 0, 0)


def test_only_what_changed_since_is_looked_at(local_store: ObjectStore, photos: str) -> None:
    """A shard of other masks, a shard without any, and one that was never published."""
    plan_pictures(local_store, photos, 16)
    images = [commit_images(local_store, shard) for shard in range(4)]
    for record in images[:3]:
        commit_masks(local_store, record, bad=[f"{record.shard * 4 + 1:09d}"])
    known = publish_all(local_store)
    other = row_of(
        ColumnVersion(local_store, "masks", "9" * 16), commit_masks(local_store, images[1], digits="9" * 16)
    )
    changes = {(1, "masks"): other, (2, "masks"): None}
    facts: dict[str, Any] = {"columns": BOTH, "settings": {}, "models": {}, "totals": {}}
    publish_over(
        local_store,
        lambda parent: Publication(known.row_set().changed(changes), facts),
        CREATED,
        made_by="test",
    )
    counting: Any = Counting(local_store)
    found = verify(counting, known=known)
    assert counting.shards == {1, 2, 3}, "the masks of shard 2 are committed, and read from there"
    assert found == verify(local_store)


@pytest.mark.parametrize("reason", ["too_small", NOT_ANNOTATED])
def test_what_rows_leave_open_is_read(local_store: ObjectStore, photos: str, reason: str) -> None:
    """Two columns reject in shard 0, perhaps the same image; one of shard 1 may only lack a name for it."""
    plan_pictures(local_store, photos, 10)
    for shard in range(3):
        images = commit_images(local_store, shard)
        keys = load_plans(local_store).keys_of(shard)
        commit_masks(local_store, images, bad=keys[:1] if shard == 0 else ())
        rejects = {0: keys[:2], 1: keys[:1], 2: ()}[shard]
        commit(
            ColumnVersion(local_store, "captions", "5" * 16),
            shard,
            [mask_sample(key) for key in keys if key not in rejects],
            tuple(Reject(key, reason, "") for key in rejects),
            {"images": images.sha256},
        )
    versions = {**BOTH, "captions": "5" * 16}
    rows = committed_rows(local_store, versions, None).rows
    facts: dict[str, Any] = {"columns": versions, "settings": {}, "models": {}, "totals": {}}
    known = publish_over(local_store, lambda _: Publication(rows, facts), CREATED, made_by="test")
    counting: Any = Counting(local_store)
    assert verify(counting, known=known) == verify(local_store)
    assert counting.shards == ({0} if reason == "too_small" else {0, 1})


# Rejects by reason, in rows and in records


def without_reasons(store: ObjectStore, generation: Generation) -> RowSet:
    """As a manifest written before there were any."""
    return RowSet.of(store, (replace(row, reasons=None) for row in generation.rows()))


def test_rejects_are_counted_by_rows_as_by_records(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    counting: Any = Counting(local_store)
    committed = committed_rows(counting, BOTH, generation)
    old = Committed(
        committed.num_shards,
        committed.in_parent,
        {},
        without_reasons(local_store, generation),
        {},
        committed.models,
    )
    before = len(counting.records)
    assert count_rejects(counting, committed, BOTH) == {"not_an_image": 1, "out_of_memory": 1}
    totals = count_rows(counting, generation.row_set())
    assert len(counting.records) == before, "rows tell"
    assert count_rejects(counting, old, BOTH) == count_rejects(local_store, committed, BOTH)
    assert count_rows(counting, old.rows) == totals and totals["rejected"] == 2 and totals["annotated"] == 8
    assert len(counting.records) == before + 3, "records of the two, and once more of the masks'"
