"""The review column: made from saves when a generation is published, and never losing what was there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskmill.pipeline.rle import Rle
from maskmill.storage.care.forget import forget
from maskmill.storage.care.garbage import find_garbage
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import join, read_record
from maskmill.storage.dataset.saves import Base, Save, Standing, saves_of
from maskmill.storage.errors import DamagedObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.jobs.import_column import import_annotations
from maskmill.workers.reviews.column import publish_saves, review_record, unpublished, with_reviews
from maskmill.workers.reviews.keep import Kept, Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork
from tests.workers.reviews.old_reviews import publish_old_reviews
from tests.workers.train.training_set import now, write_coco

NOW = "2025-01-01T00:00:00+00:00"
ONE, TWO, THREE = "000000001", "000000002", "000000003"


def reviewed(store: ObjectStore, generation: Generation | None = None) -> dict[str, Any]:
    """Every sample of the column by key."""
    return {
        sample.key: json.loads(sample.files["review"]["json"])
        for sample in join(store, generation or now(store), ("review",))
    }


def person(store: ObjectStore, key: str, *, how: str = "confirmed", who: str = "Ana", drop: int = 0) -> Kept:
    """Somebody goes through a picture's masks, rejecting the first few."""
    generation = now(store)
    files = next(one.files for one in join(store, generation, ("masks", "review")) if one.key == key)
    old = json.loads(files.get("review", {}).get("json", b"null"))
    record, column = (old, "review") if old is not None else (json.loads(files["masks"]["json"]), "masks")
    start = begin(store, key, record=record, generation=generation.number, column=column)
    ids = [int(row["id"]) for row in start.rows]
    masks = [MaskWork(how=how, sources=(one,), clicks=1) for one in ids[drop:]]
    work = Work(who=who, tool="page", masks=masks, rejected=ids[:drop], finished=True, clicks=3, seconds=9.5)
    return keep(store, start, work, created_utc=NOW)


def rows_of(generation: Generation) -> dict[int, Any]:
    return {row.shard: row for row in generation.rows() if row.column == "review"}


def test_the_newest_save_of_each_picture_is_what_is_published(store: ObjectStore) -> None:
    first = now(store)
    person(store, ONE)
    person(store, ONE, drop=1)
    assert unpublished(store, first) == 1
    made = publish_saves(store, created_utc=NOW)
    assert made is not None and made.number == first.number + 1

    found = reviewed(store)
    assert set(found) == {ONE, TWO}, "shards that nobody reviewed have none"
    assert found[TWO] is None
    assert len(found[ONE]["annotations"]) == 2
    facts = found[ONE]["review"]
    assert (facts["by"], facts["who"], facts["save"], facts["complete"]) == ("person", "Ana", 2, True)
    assert (facts["seconds"], facts["clicks"], facts["rejected"], facts["beside"]) == (9.5, 3, 1, [])
    assert read_record(store, rows_of(made)[0]).models["annotator"] == "person"
    assert (unpublished(store, made), made.totals["review"]) == (0, 2)
    again = publish_saves(store, created_utc=NOW)
    assert again == made, "nothing is newer: nothing is published"


def test_only_shards_with_newer_saves_are_written_anew(store: ObjectStore) -> None:
    person(store, ONE)
    person(store, THREE)
    before = publish_saves(store, created_utc=NOW)
    person(store, ONE, drop=2)
    after = publish_saves(store, created_utc=NOW)
    assert before is not None and after is not None
    assert rows_of(after)[1] == rows_of(before)[1]
    assert rows_of(after)[0] != rows_of(before)[0]
    assert len(reviewed(store)[ONE]["annotations"]) == 1
    assert len(reviewed(store, before)[ONE]["annotations"]) == 3, "the earlier generation keeps its own"
    assert verify(store, deep=True).ok


def test_reviews_from_before_saves_stay_until_a_save_takes_their_place(store: ObjectStore) -> None:
    old = publish_old_reviews(store, {ONE: "assisted", TWO: "semi", THREE: "assisted"})
    before = reviewed(store)
    assert publish_saves(store, created_utc=NOW) == old, "nothing to do for a dataset of before"

    save = person(store, ONE, drop=1).save
    assert save.base.column == "review" and len(save.annotations) == 2
    publish_saves(store, created_utc=NOW)
    after = reviewed(store)
    assert {key: after[key] for key in (TWO, THREE)} == {key: before[key] for key in (TWO, THREE)}
    assert after[ONE]["review"]["save"] == 1
    assert verify(store, deep=True).ok


def test_any_publishing_takes_saves_up(store: ObjectStore, tmp_path: Path) -> None:
    person(store, ONE)
    known = write_coco(tmp_path / "known", first=0, count=4)
    import_annotations(store, [known.coco], format="coco", created_utc=NOW)
    assert reviewed(store)[ONE]["review"]["who"] == "Ana"
    assert unpublished(store, now(store)) == 0


def test_two_at_once_are_both_named(store: ObjectStore) -> None:
    files = next(one.files for one in join(store, now(store), ("masks",)) if one.key == ONE)
    start = begin(store, ONE, record=json.loads(files["masks"]["json"]), generation=1)
    ids = [int(row["id"]) for row in start.rows]
    for who in ("Ana", "Ben"):
        masks = [MaskWork(how="confirmed", sources=(one,)) for one in ids]
        keep(store, start, Work(who=who, tool="page", masks=masks), created_utc=NOW)
    publish_saves(store, created_utc=NOW)
    facts = reviewed(store)[ONE]["review"]
    assert (facts["who"], facts["beside"]) == ("Ana", [2])


def test_a_picture_stored_at_another_size_has_its_masks_fitted() -> None:
    rle = Rle(4, 4, b"0").to_coco() | {"counts": [4, 4, 8]}
    row = {"id": 1, "segmentation": Rle.from_coco(rle).to_coco(), "area": 4, "bbox": [1, 0, 0, 3]}
    save = Save(
        key=ONE,
        number=1,
        save_id="a",
        who="Ana",
        made_by="person",
        tool="page",
        created_utc=NOW,
        seconds=0,
        clicks=0,
        base=Base(),
        finished=True,
        image={"image_id": 1, "width": 4, "height": 4},
        annotations=(row,),
        ignore=row["segmentation"],
    )
    image = {"image_id": 1, "width": 8, "height": 8, "file_name": "000000001.jpg"}
    record = review_record(Standing(save), image)
    assert record is not None and record["image"] == image
    (found,) = record["annotations"]
    assert (found["area"], found["bbox"], found["segmentation"]["size"]) == (16, [2, 0, 1, 7], [8, 8])
    assert record["review"]["ignore"]["size"] == [8, 8]
    assert review_record(Standing(), image) is None


def test_forgetting_removes_what_people_made_and_nothing_else_does(store: ObjectStore) -> None:
    person(store, ONE)
    person(store, TWO)
    publish_saves(store, created_utc=NOW)
    assert find_garbage(store, min_age_s=-1e9) == [], "no save is ever garbage"
    forget(store, [ONE], created_utc=NOW)
    assert saves_of(store, ONE) == ()
    assert len(saves_of(store, TWO)) == 1
    assert set(reviewed(store)) == {TWO}
    publish_saves(store, created_utc=NOW)
    assert reviewed(store)[TWO]["review"]["save"] == 1
    assert verify(store, deep=True).ok


def test_verify_reads_saves(store: ObjectStore) -> None:
    for drop in (0, 1, 2):
        person(store, ONE, drop=drop)
    publish_saves(store, created_utc=NOW)
    assert verify(store).ok
    middle, last = (f"review/saves/{ONE}/{number:06d}.json" for number in (2, 3))

    whole = store.read(middle)
    store.put(middle, whole[:-40])
    assert any(middle in one and "not a readable save" in one for one in verify(store).problems)
    store.delete(middle)
    assert any(middle in one and "is gone" in one for one in verify(store).problems)
    store.put(middle, whole)
    assert verify(store).ok

    store.delete(last)
    assert any("save 3" in one and ONE in one for one in verify(store, deep=True).problems)


def test_a_damaged_save_stops_no_run_and_is_not_passed_over(store: ObjectStore) -> None:
    person(store, ONE)
    before = publish_saves(store, created_utc=NOW)
    assert before is not None
    person(store, ONE, drop=1)
    person(store, THREE)
    name = f"review/saves/{ONE}/000002.json"
    whole = store.read(name)
    store.put(name, whole.replace(b'"clicks":3', b'"clicks":4'))

    made = with_reviews(store, before.row_set(), created_utc=NOW)
    assert made.shards == (1,), "the other shard's reviews are taken up"
    assert [row for row in made.rows if row.shard == 0] == [row for row in before.rows() if row.shard == 0]
    with pytest.raises(DamagedObject, match=f"{name}.*stay as they were until it is put back"):
        publish_saves(store, created_utc=NOW)
    store.put(name, whole)
    publish_saves(store, created_utc=NOW)
    assert len(reviewed(store)[ONE]["annotations"]) == 2
