"""What a run publishes: its own versions where they are committed, the generation before elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, Publication, publish, publish_over
from maskmill.storage.dataset.manifest import GenerationRow, row_of
from maskmill.storage.dataset.merge import committed_rows, count_rows, merge_rows
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.dataset.row_set import RowSet
from maskmill.storage.errors import DatasetError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, IMAGES, MASKS, commit_images, commit_masks, plan_pictures

NEW = "9" * 16


@pytest.fixture
def base(tmp_path: Path) -> tuple[ObjectStore, Generation, list[CommitRecord]]:
    """Two shards with images and masks, published; and the images' records."""
    store = open_store(tmp_path / "data")
    plan_pictures(store, str(tmp_path / "photos"), 7)
    images = [commit_images(store, shard) for shard in range(2)]
    for record in images:
        commit_masks(store, record)
    columns = {"images": IMAGES, "masks": MASKS}
    generation = publish(store, columns, settings={}, models={}, totals={}, created_utc=CREATED)
    return store, generation, images


def rows_of(store: ObjectStore, **digits: str) -> dict[str, list[GenerationRow]]:
    return {
        column: [row_of(version, record) for record in version.records()]
        for column, fingerprint in digits.items()
        for version in [ColumnVersion(store, column, fingerprint)]
    }


def versions(rows: Iterable[GenerationRow]) -> dict[tuple[int, str], str]:
    return {(row.shard, row.column): row.fingerprint for row in rows}


def test_shards_that_are_not_done_stay_as_they_were(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, images = base
    commit_masks(store, images[1], digits=NEW)
    merged = merge_rows(store, rows_of(store, images=IMAGES, masks=NEW), parent)
    assert versions(merged.rows) == {
        (0, "images"): IMAGES,
        (0, "masks"): MASKS,
        (1, "images"): IMAGES,
        (1, "masks"): NEW,
    }
    assert not merged.dropped


def test_columns_that_the_run_does_not_make_are_carried_over(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, images = base
    made = rows_of(store, images=IMAGES, masks=MASKS)
    other = commit_masks(store, images[0], digits="7" * 16)  # stands for a column of its own
    extra = replace(row_of(ColumnVersion(store, "masks", "7" * 16), other), column="given")
    with_given = publish_over(
        store,
        lambda _: Publication(parent.row_set().changed({(extra.shard, extra.column): extra}), facts()),
        CREATED,
        made_by="import",
    )
    merged = merge_rows(store, made, with_given)
    assert tuple(merged.rows) == with_given.rows()


def facts() -> dict[str, dict[str, object]]:
    return {"columns": {}, "settings": {}, "models": {}, "totals": {}}


def test_what_was_made_from_something_else_is_dropped_or_keeps_its_shard(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, _ = base
    commit_images(store, 0, digits=NEW)  # new pictures, whose masks are not made yet
    made = {**rows_of(store, images=NEW), "masks": []}
    assert tuple(merge_rows(store, made, parent).rows) == parent.rows(), (
        "masks would be lost, so the shard stays"
    )
    merged = merge_rows(store, rows_of(store, images=NEW), parent)
    assert (0, "masks") not in versions(merged.rows), "a run that makes no masks cannot keep masks of others"
    assert merged.dropped == {"masks": 1}
    assert versions(merged.rows)[1, "masks"] == MASKS


def test_the_first_generation_is_what_was_made(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, _ = base
    assert (
        merge_rows(store, rows_of(store, images=IMAGES, masks=MASKS), None).rows.over(parent.manifest)
        == parent.row_set()
    )


def test_totals_are_counted_from_rows(base: tuple[ObjectStore, Generation, list[CommitRecord]]) -> None:
    store, parent, images = base
    totals = {"images": 7, "masks": 7, "annotated": 7, "rejected": 0}
    assert count_rows(store, parent.row_set()) == totals
    commit_masks(store, images[1], digits=NEW, bad=["000000006"])
    merged = merge_rows(store, rows_of(store, images=IMAGES, masks=NEW), parent)
    assert count_rows(store, merged.rows) == {**totals, "masks": 6, "annotated": 6, "rejected": 1}
    images_only = RowSet.of(store, (row for row in parent.rows() if row.column == "images"))
    assert count_rows(store, images_only) == {"images": 7, "masks": 0, "annotated": 0, "rejected": 0}


class Counting:
    """A store that counts its reads of commit records."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.read_records: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read(self, name: str, *args: Any) -> bytes:
        if "/commits/" in name:
            self.read_records.append(name)
        return self.store.read(name, *args)


def test_only_what_the_parent_has_not_is_read(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, images = base
    counting: Any = Counting(store)
    same = committed_rows(counting, {"images": IMAGES, "masks": MASKS}, parent)
    assert tuple(same.rows) == parent.rows() and same.num_shards == {"images": 2, "masks": 2}
    assert not same.read and len(counting.read_records) == 2, "the first of each column, for its models"

    commit_masks(store, images[0], digits=NEW)
    other = committed_rows(counting, {"images": IMAGES, "masks": NEW}, parent)
    assert sorted(other.read) == [(0, "images"), (0, "masks")], "both of the shard, which must fit together"
    assert [row.fingerprint for row in other.rows if row.column == "images"] == [IMAGES, IMAGES]


def test_a_carried_record_that_names_another_input_is_read_and_refused(
    base: tuple[ObjectStore, Generation, list[CommitRecord]],
) -> None:
    store, parent, images = base
    version = ColumnVersion(store, "images", IMAGES)
    name = version.data_name(0, "again")
    store.put(name, store.read(images[0].data.name))
    version.commit(replace(images[0], attempt="again", data=replace(images[0].data, name=name), repair=1))
    with pytest.raises(DatasetError, match="made from another images shard"):
        committed_rows(store, {"images": IMAGES, "masks": MASKS}, parent)
