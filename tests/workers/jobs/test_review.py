"""Reviews by people: on the right picture, with their categories, and corrected when they are corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.jobs.review import ReviewReport, review_by_oracle
from maskmill.workers.measure.audit import audit
from maskmill.workers.run.loop_settings import LoopSettings
from tests.fakes import jpeg_bytes
from tests.workers.train.training_set import now, publish_scenes, scene_of, write_coco

NOW = "2025-01-01T00:00:00+00:00"


def given(store: ObjectStore, truth: TruthSet, images: int = 1) -> ReviewReport:
    settings = LoopSettings(reviewed=images, review_mode="given")
    return review_by_oracle(store, now(store), truth, None, settings, created_utc=NOW)


def reviews(store: ObjectStore, generation: Generation | None = None) -> dict[str, Any]:
    """The records of reviewed images by key."""
    found = {
        sample.key: json.loads(sample.files["review"]["json"])
        for sample in join(store, generation or now(store), ("review",))
    }
    return {key: record for key, record in found.items() if record is not None}


def masks_of(found: dict[str, Any]) -> dict[str, list[str]]:
    """The outlines by key, whatever is said of how they came."""
    return {
        key: sorted(row["segmentation"]["counts"] for row in record["annotations"])
        for key, record in found.items()
    }


def edited(truth: TruthSet, change: Any) -> TruthSet:
    data = json.loads(truth.coco.read_text())
    change(data)
    truth.coco.write_text(json.dumps(data))
    return truth


def named(data: dict[str, Any]) -> None:
    data["categories"] = [{"id": 1, "name": "block"}, {"id": "w", "name": "wall"}]
    data["annotations"][0]["category_id"] = "w"


def test_categories_are_kept_through_review(store: ObjectStore, tmp_path: Path) -> None:
    given(store, edited(write_coco(tmp_path / "known", first=0, count=1), named))
    (record,) = reviews(store).values()
    assert [row["label"] for row in record["annotations"]] == ["wall", "block", "block"]
    assert all(row["made_by"] == "person" for row in record["annotations"])


def test_corrections_are_new_versions_and_the_same_file_is_none(store: ObjectStore, tmp_path: Path) -> None:
    known = write_coco(tmp_path / "known", first=0, count=3)
    first = given(store, known, images=3)
    assert (first.new, first.corrected, first.images) == (3, 0, 3)
    before, generation = reviews(store), now(store)

    again = given(store, known, images=3)
    assert (again.new, again.corrected, again.generation) == (0, 0, first.generation)

    def drop_one(data: dict[str, Any]) -> None:
        del data["annotations"][0]

    fixed = given(store, edited(known, drop_one), images=1)
    assert (fixed.new, fixed.corrected, fixed.generation) == (0, 1, first.generation + 1)
    after = reviews(store)
    changed = [key for key in before if before[key] != after[key]]
    assert [(len(before[key]["annotations"]), len(after[key]["annotations"])) for key in changed] == [(3, 2)]
    assert reviews(store, generation) == before, "earlier generations keep what was there"

    # back again is a correction too: versions are chained by what they were made from
    back = given(store, write_coco(tmp_path / "back", first=0, count=3), images=1)
    assert (back.corrected, masks_of(reviews(store))) == (1, masks_of(before))
    assert {key: len(numbers) for key, numbers in saved_numbers(store).items()} == {
        "000000001": 3,
        "000000002": 1,
        "000000003": 1,
    }, "every one of them stays readable"


def test_one_correction_leaves_the_reviews_of_others_alone(store: ObjectStore, tmp_path: Path) -> None:
    given(store, write_coco(tmp_path / "two", first=0, count=2), images=2)
    kept = reviews(store)
    report = given(store, write_coco(tmp_path / "third", first=2, count=1), images=1)
    assert (report.new, report.corrected, report.images) == (1, 0, 3)
    assert {key: record for key, record in reviews(store).items() if key in kept} == kept


def test_masks_of_another_folder_are_nobody_s(store: ObjectStore, tmp_path: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["images"][0]["file_name"] = "elsewhere/0.jpg"

    known = write_coco(tmp_path / "known", first=0, count=2)
    report = given(store, edited(known, elsewhere))
    assert (report.matched, report.not_in_dataset, report.ambiguous) == (1, 1, 0)
    assert list(reviews(store)) == ["000000002"]
    with pytest.raises(InputError, match=r"has 1 of the dataset's images, but 2 .*1 are not in it"):
        given(store, known, images=2)

    # the audit holds masks against the same picture's truth alone
    against = audit(store, now(store), known)
    assert (against.images, against.mean_iou, against.matched, against.not_in_dataset) == (1, 1.0, 1, 1)


def test_a_name_for_two_pictures_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "inputs" / "b").mkdir(parents=True)
    (tmp_path / "inputs" / "b" / "0.jpg").write_bytes(jpeg_bytes(scene_of("7").image))
    publish_scenes(tmp_path, count=2)
    store = open_store(str(tmp_path / "dataset"))
    report = given(store, write_coco(tmp_path / "known", first=0, count=2))
    assert (report.matched, report.ambiguous, report.images) == (1, 1, 1)
    against = audit(store, now(store), write_coco(tmp_path / "again", first=0, count=2))
    assert (against.images, against.ambiguous, against.mean_iou) == (1, 1, 1.0)


def test_a_bad_annotation_leaves_the_picture_s_others_and_takes_away_complete(
    store: ObjectStore, tmp_path: Path
) -> None:
    def spoil(data: dict[str, Any]) -> None:
        data["annotations"][0]["segmentation"] = [[1, 2]]
        data["annotations"][4]["segmentation"] = None

    report = given(store, edited(write_coco(tmp_path / "known", first=0, count=2), spoil), images=2)
    assert report.left_out == {"bad_polygon": 1, "box_alone": 1}
    found = reviews(store).values()
    assert [(len(one["annotations"]), one["review"]["complete"]) for one in found] == [(2, False), (2, False)]
    assert all(one["review"]["by"] == "person" for one in found)
