"""What people made was lost in eight ways; a test for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.storage.dataset.join import join, read_record
from maskmill.storage.errors import DatasetError, InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.query.query import run_query
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.jobs.import_column import ImportReport, import_annotations
from maskmill.workers.jobs.review import ReviewReport, review_by_oracle
from maskmill.workers.measure.audit import audit
from maskmill.workers.pictures.preview import preview_page
from maskmill.workers.pictures.render import contact_sheet
from maskmill.workers.reading.word_rows import rows_for
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import MaskWork
from maskmill.workers.run.loop_settings import LoopSettings
from maskmill.workers.train.stream import Place, TrainStream
from tests.workers.reviews.old_reviews import publish_old_reviews
from tests.workers.train.training_set import now, write_coco

NOW = "2025-01-01T00:00:00+00:00"
ONE = "000000001"


def given(store: ObjectStore, truth: TruthSet, images: int = 1) -> ReviewReport:
    settings = LoopSettings(reviewed=images, review_mode="given")
    return review_by_oracle(store, now(store), truth, None, settings, who="Ana", created_utc=NOW)


def by_person(store: ObjectStore, truth: TruthSet, who: str = "Ana") -> ImportReport:
    return import_annotations(store, [truth.coco], format="coco", by=who, created_utc=NOW)


def edited(truth: TruthSet, change: Any) -> TruthSet:
    data = json.loads(truth.coco.read_text())
    change(data)
    truth.coco.write_text(json.dumps(data))
    return truth


def reviews(store: ObjectStore) -> dict[str, Any]:
    found = {
        sample.key: json.loads(sample.files["review"]["json"])
        for sample in join(store, now(store), ("review",))
    }
    return {key: record for key, record in found.items() if record is not None}


def one_less(data: dict[str, Any]) -> None:
    del data["annotations"][0]


def named(data: dict[str, Any]) -> None:
    data["categories"] = [{"id": 1, "name": "block"}, {"id": 7, "name": "wall"}]
    data["annotations"][0]["category_id"] = 7


def test_masks_never_land_on_another_picture_of_the_same_stem(store: ObjectStore, tmp_path: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["images"][0]["file_name"] = "other/0.jpg"

    report = by_person(store, edited(write_coco(tmp_path / "known", first=0, count=2), elsewhere))
    assert (report.matched, report.unmatched, dict(report.reviews)) == (1, 1, {"new": 1})
    assert list(reviews(store)) == ["000000002"]


def test_an_import_never_replaces_the_reviews_of_others(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be imported"):
        paths = [write_coco(tmp_path / "no", first=0, count=1).coco]
        import_annotations(store, paths, format="coco", column="review", created_utc=NOW)
    by_person(store, write_coco(tmp_path / "two", first=0, count=2))
    before = reviews(store)
    report = by_person(store, write_coco(tmp_path / "third", first=2, count=1), who="Ben")
    assert dict(report.reviews) == {"new": 1}
    after = reviews(store)
    assert {key: after[key] for key in before} == before
    assert [one["review"]["who"] for one in after.values()] == ["Ana", "Ana", "Ben"]


def test_a_corrected_file_corrects_and_never_covers_what_a_person_did_since(
    store: ObjectStore, tmp_path: Path
) -> None:
    known = write_coco(tmp_path / "known", first=0, count=2)
    assert dict(by_person(store, known).reviews) == {"new": 2}
    assert dict(by_person(store, known).reviews) == {"same": 2}
    assert dict(by_person(store, edited(known, one_less)).reviews) == {"corrected": 1, "same": 1}
    assert len(reviews(store)[ONE]["annotations"]) == 2

    record = reviews(store)[ONE]
    start = begin(store, ONE, record=record, generation=now(store).number, column="review")
    ids = [int(row["id"]) for row in start.rows]
    work = [MaskWork(how="confirmed", sources=(one,), label="mine") for one in ids]
    keep(store, start, Work(who="Ben", tool="page", masks=work), created_utc=NOW)
    again = edited(known, one_less)
    assert dict(by_person(store, again).reviews) == {"beside": 1, "same": 1}
    assert dict(by_person(store, again).reviews) == {"beside": 1, "same": 1}, "kept once"
    facts = reviews(store)[ONE]["review"]
    assert (facts["who"], len(facts["beside"])) == ("Ben", 1)


def test_people_s_categories_are_kept_from_file_to_export(store: ObjectStore, tmp_path: Path) -> None:
    by_person(store, edited(write_coco(tmp_path / "known", first=0, count=1), named))
    assert [row["label"] for row in reviews(store)[ONE]["annotations"]] == ["wall", "block", "block"]
    export(store, now(store), str(tmp_path / "out"), format="coco", images=False)
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())
    names = {one["id"]: one["name"] for one in found["categories"]}
    first = [row for row in found["annotations"] if row["image_id"] == 1]
    assert [names[row["category_id"]] for row in first] == ["wall", "block", "block"]


def test_records_say_who_made_them(store: ObjectStore, tmp_path: Path) -> None:
    given(store, write_coco(tmp_path / "known", first=0, count=1))
    (record,) = reviews(store).values()
    assert (record["review"]["by"], record["review"]["who"]) == ("person", "Ana")
    assert {row["made_by"] for row in record["annotations"]} == {"person"}
    row = next(row for row in now(store).rows() if row.column == "review")
    assert read_record(store, row).models["annotator"] == "person"


def test_an_audit_never_holds_automatic_masks_against_themselves(store: ObjectStore, tmp_path: Path) -> None:
    files = next(one.files for one in join(store, now(store), ("masks",)) if one.key == ONE)
    start = begin(store, ONE, record=json.loads(files["masks"]["json"]), generation=1)
    ids = [int(row["id"]) for row in start.rows]

    def save(how: list[str], saves: int) -> None:
        masks = [MaskWork(how=one, sources=(id_,)) for one, id_ in zip(how, ids, strict=True)]
        again = begin(store, ONE, record=json.loads(files["masks"]["json"]), generation=1)
        kept = keep(store, again, Work(who="Ana", tool="page", masks=masks, finished=True), created_utc=NOW)
        assert kept.save.number == saves
        publish_saves(store, created_utc=NOW)

    save(["kept", "kept", "kept"], 1)
    with pytest.raises(InputError, match="held against themselves they would all be right"):
        audit(store, now(store))
    save(["confirmed", "kept", "kept"], 2)
    found = audit(store, now(store))
    assert (found.masks, found.unjudged, found.above_90, found.found_50) == (1, 2, 1.0, 1.0)


def test_reviews_from_before_saves_are_audited_alike(store: ObjectStore) -> None:
    publish_old_reviews(store, {ONE: "assisted", "000000003": "semi"})
    found = audit(store, now(store))
    assert (found.images, found.masks, found.unjudged) == (2, 4, 2)

    # Of a set of pictures alone: what people took first is no fair sample
    alone = audit(store, now(store), only={ONE, "000000002"})
    assert (alone.images, alone.masks + alone.unjudged) == (1, 3)
    with pytest.raises(InputError, match="of those asked for"):
        audit(store, now(store), only={"000000002"})


def test_masks_that_people_made_elsewhere_can_be_trained_on(tmp_path: Path) -> None:
    known = write_coco(tmp_path / "known", first=0, count=3)
    store = open_store(str(tmp_path / "dataset"))

    def plan() -> None:
        make_plan(store, [str(known.images)], shard_size=2)

    import_annotations(store, [known.coco], format="coco", created_utc=NOW, prepare=plan)
    with pytest.raises(DatasetError, match="import the same file `--by person`"):
        TrainStream(store, now(store), TrainSettings())
    by_person(store, known)
    stream = TrainStream(store, now(store), TrainSettings(min_area_px=4, reviewed_repeat=2))
    items = stream.items(Place())
    epoch = [next(items)[1] for _ in range(6)]
    assert sorted(raw.key for raw in epoch) == sorted(2 * [ONE, "000000002", "000000003"])
    assert all(raw.reviewed and raw.labelled().by_person_N.all() for raw in epoch)


def test_exports_take_people_s_masks_where_they_are(store: ObjectStore, tmp_path: Path) -> None:
    by_person(store, edited(write_coco(tmp_path / "known", first=0, count=1), one_less))
    for format in ("coco", "sa1b", "yolo", "hf"):
        plain = export(store, now(store), str(tmp_path / format), format=format)
        assert (plain.num_images, plain.num_masks) == (4, 11), format
        assert (plain.num_reviewed_images, plain.num_reviewed_masks) == (1, 2)
        again = export(store, now(store), str(tmp_path / format), format=format)
        assert (again.already_complete, again.num_reviewed_masks) == (True, 2)
    machine = export(store, now(store), str(tmp_path / "machine"), format="coco", prefer="automatic")
    assert (machine.num_masks, machine.num_reviewed_images) == (12, 0)


def test_an_export_tells_no_name_of_a_person(store: ObjectStore, tmp_path: Path) -> None:
    by_person(store, write_coco(tmp_path / "known", first=0, count=4), who="Ana Secret")
    for format in ("coco", "sa1b", "hf"):
        export(store, now(store), str(tmp_path / format), format=format)
    for path in (path for path in tmp_path.rglob("*") if path.is_file() and "dataset" not in path.parts):
        assert b"Ana Secret" not in path.read_bytes(), path


def test_a_column_that_is_reviewed_in_part_exports(store: ObjectStore, tmp_path: Path) -> None:
    by_person(store, write_coco(tmp_path / "known", first=0, count=1))
    report = export(store, now(store), str(tmp_path / "out"), format="coco", column="review")
    assert (report.num_images, report.num_masks, report.num_unannotated) == (1, 3, 3)


def test_crowds_of_a_person_s_file_stay_crowds(store: ObjectStore, tmp_path: Path) -> None:
    def crowd(data: dict[str, Any]) -> None:
        data["annotations"][0]["iscrowd"] = 1

    by_person(store, edited(write_coco(tmp_path / "known", first=0, count=1), crowd))
    (record,) = reviews(store).values()
    assert (len(record["annotations"]), record["review"]["ignore"]["size"]) == (2, [64, 64])
    export(store, now(store), str(tmp_path / "out"), format="coco", images=False)
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert sorted(row["iscrowd"] for row in found if row["image_id"] == 1) == [0, 0, 1]
    lvis = export(store, now(store), str(tmp_path / "lvis"), format="lvis", images=False)
    assert dict(lvis.left_out) == {"crowd": 1}


def test_imports_and_reviews_can_be_looked_at(tmp_path: Path) -> None:
    known = write_coco(tmp_path / "known", first=0, count=3)
    store = open_store(str(tmp_path / "dataset"))

    def plan() -> None:
        make_plan(store, [str(known.images)], shard_size=2)

    import_annotations(store, [known.coco], format="coco", created_utc=NOW, prepare=plan)
    assert ">9<" in preview_page(store, now(store)), "nine masks, of the only column there is"
    by_person(store, edited(known, one_less))
    assert ">8<" in preview_page(store, now(store), column="review")
    assert len(contact_sheet(store, now(store), column="given")) > 1000
    with pytest.raises(DatasetError, match="has no masks"):
        preview_page(store, now(store), column="masks")


def test_saves_and_reviews_are_tables_of_a_query(store: ObjectStore, tmp_path: Path) -> None:
    by_person(store, edited(write_coco(tmp_path / "known", first=0, count=1), named))

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return list(run_query(store, now(store), sql, rows_for=rows_for).rows)

    assert ask("select label, how, who, save, finished from review order by label") == [
        ("block", "added", "Ana", 1, 1),
        ("block", "added", "Ana", 1, 1),
        ("wall", "added", "Ana", 1, 1),
    ], "and a picture that nobody reviewed has no row"
    by_person(store, edited(write_coco(tmp_path / "again", first=0, count=1), one_less), who="Ben")
    assert ask("select number, in_force, who, masks, rejected, tool from saves order by number") == [
        (1, 0, "Ana", 3, 0, "import"),
        (2, 1, "Ben", 2, 3, "import"),
    ]
