"""Boxes of a hand-made detector become masks and labels; only the segmenter is real."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.masks.boxes import masks_of_boxes
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings.words import LabelSettings
from maskmill.pipeline.words.detectors.base import Detections, Query
from maskmill.pipeline.words.ground import (
    Grounder,
    GroundInput,
    ImageLabels,
    Label,
    failed_filter,
    kept_boxes,
    labels_from_record,
    labels_to_record,
    link,
)
from maskmill.workers.run.reject_reasons import reason_names
from tests.masks import mask


def settings(**changes: Any) -> LabelSettings:
    return LabelSettings(**{"model": "d", "text": "vocabulary", "vocabulary": ("cat",), **changes})


def detections(*rows: tuple[float, float, float, float, float, str]) -> Detections:
    return Detections(
        np.array([row[:4] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[4] for row in rows]),
        tuple(row[5] for row in rows),
        tuple(row[5] for row in rows),
    )


class Finds:
    """A detector that finds the same boxes in every image; notes what it is asked."""

    def __init__(self, found: Detections) -> None:
        self.found = found
        self.asked: list[str] = []

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        return (Query(caption),)

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        return tuple(Query(phrase, (phrase,)) for phrase in phrases)

    def detect(self, jobs: Sequence[tuple[Any, Query]]) -> list[Detections]:
        self.asked += [query.text for _, query in jobs]
        return [self.found if query.phrases else detections() for _, query in jobs]


ROWS = (
    (0.0, 0.0, 10.0, 10.0, 0.9, "cat"),
    (0.0, 0.0, 10.0, 9.0, 0.8, "cat"),
    (0.0, 1.0, 10.0, 10.0, 0.7, "dog"),
    (15.0, 5.0, 25.0, 12.0, 0.6, "dog"),
    (30.0, 30.0, 40.0, 40.0, 0.5, "cat"),
    (1.0, 1.0, 2.0, 2.0, 0.4, " \x00"),
)


def test_boxes_compete_over_all_classes_or_within_each() -> None:
    kept, dropped = kept_boxes([detections(*ROWS)], settings(), width=20, height=10)
    assert [(box.label, box.score, box.box_xyxy) for box in kept] == [
        ("cat", 0.9, (0.0, 0.0, 10.0, 10.0)),
        ("dog", 0.6, (15.0, 5.0, 20.0, 10.0)),
    ]
    assert dropped == {"no_extent": 1, "no_phrase": 1}
    kept, _ = kept_boxes([detections(*ROWS)], settings(per_class=True), width=20, height=10)
    assert [(box.label, box.score) for box in kept] == [("cat", 0.9), ("dog", 0.7), ("dog", 0.6)]


def test_boxes_of_all_queries_compete_and_the_best_stay() -> None:
    parts = [detections(row) for row in ROWS[:4]]
    kept, dropped = kept_boxes(parts, settings(max_boxes=1), width=20, height=10)
    assert [box.score for box in kept] == [0.9] and dropped == {"too_many": 1}
    assert kept_boxes([], settings(), width=20, height=10) == ((), {})


def test_masks_link_to_the_grid_mask_that_agrees() -> None:
    grid = [mask((0, 0, 10, 10)), mask((10, 0, 20, 10)), mask((0, 0, 1, 1))]
    made = [mask((0, 0, 10, 9)), mask((12, 0, 20, 10)), mask((0, 0, 1, 1))]
    assert link(made, grid, 0.9) == [(0, pytest.approx(0.9)), None, (2, 1.0)]
    assert link(made, [], 0.9) == [None] * 3 and link([], grid, 0.9) == []


def as_annotation(mask_HW: Any) -> Annotation:
    return Annotation(encode_mask(mask_HW), (0.0,) * 4, int(mask_HW.sum()), 0.9, 0.9, (0.0,) * 4, ())


@pytest.fixture(scope="module")
def segmenter(tiny_sam: Any) -> SamSegmenter:
    return SamSegmenter(tiny_sam, device="cpu")


def test_a_label_takes_a_grid_mask_or_brings_its_own(segmenter: SamSegmenter, photo: Any) -> None:
    """The first box's own mask is put in the grid, so that label must link to it; the second's is new."""
    rows = ((20.0, 30.0, 200.0, 220.0, 0.9, "cat"), (5.0, 5.0, 60.0, 50.0, 0.8, "cat"))
    (embedding,) = segmenter.embed([photo])
    boxes = np.array([row[:4] for row in rows])
    first, second = masks_of_boxes(
        segmenter.prompt(embedding), boxes, mask_threshold=segmenter.mask_threshold
    )
    other = np.zeros(photo.shape[:2], np.bool_)
    other[:3, :3] = True
    grid = AnnotatedImage(photo.shape[1], photo.shape[0], (as_annotation(other), first))
    detector = Finds(detections(*rows))
    ground = Grounder(detector, segmenter, ("cat",), settings(box_nms=0.9))
    (found,) = ground([GroundInput(photo, grid, "a cat")])
    assert detector.asked == ["a cat", "cat"] and found.num_queries == 2
    assert found.labels[0].mask == 1 and found.labels[0].link_iou == pytest.approx(1.0)
    assert second.area_px > 0 and found.labels[1].link_iou is None and found.labels[1].mask == 0
    assert found.annotations == (second,)

    record = labels_to_record(found, image_id=7, file_name="000000007.jpg")
    assert [row["mask"] for row in record["labels"]] == [700_001, 700_002]
    assert record["annotations"][0]["id"] == 700_002
    assert labels_from_record(json.loads(json.dumps(record))) == found


def own_mask(**measures: Any) -> Annotation:
    """A mask of 100 px with both scores 0.9, but for these."""
    return dataclasses.replace(mask((0, 0, 10, 10)), **measures)


@pytest.mark.parametrize(
    ("measures", "filters", "reason"),
    [
        ({}, {"predicted_iou": 0.88, "stability": 0.9, "min_area_px": 100}, None),
        ({"predicted_iou": 0.88}, {"predicted_iou": 0.88}, "low_predicted_iou"),
        ({"stability_score": 0.89}, {"stability": 0.9}, "low_stability"),
        ({"area_px": 99}, {"min_area_px": 100}, "small_mask"),
        ({"predicted_iou": -1.0, "stability_score": 0.0, "area_px": 1}, {}, None),
        ({"predicted_iou": -1.0, "stability_score": 0.0}, {"predicted_iou": 0.0, "stability": 0.0}, None),
    ],
)
def test_a_boxs_mask_is_held_to_the_grids_rules(
    measures: dict[str, Any], filters: dict[str, Any], reason: str | None
) -> None:
    assert failed_filter(own_mask(**measures), settings(**filters)) == reason


def test_a_mask_that_fails_leaves_its_label_and_is_counted(segmenter: SamSegmenter, photo: Any) -> None:
    """One box's mask is smaller than the other's: the least area lies between the two."""
    rows = ((20.0, 30.0, 200.0, 220.0, 0.9, "cat"), (5.0, 5.0, 60.0, 50.0, 0.8, "dog"))
    nothing = AnnotatedImage(photo.shape[1], photo.shape[0], ())

    def ground(**filters: int) -> ImageLabels:
        made = Grounder(Finds(detections(*rows)), segmenter, ("cat",), settings(box_nms=0.9, **filters))
        (found,) = made([GroundInput(photo, nothing)])
        return found

    both = ground()
    areas_px = [one.area_px for one in both.annotations]
    assert len(set(areas_px)) == 2 and both.dropped == {}
    one = ground(min_area_px=max(areas_px))
    assert [label.label for label in one.labels] == ["cat", "dog"], "words and boxes stay"
    assert sorted(label.mask is None for label in one.labels) == [False, True]
    assert [mask.area_px for mask in one.annotations] == [max(areas_px)]
    assert one.dropped == {"small_mask": 1} and set(one.dropped) <= reason_names()

    record = labels_to_record(one, image_id=7, file_name="000000007.jpg")
    assert labels_from_record(json.loads(json.dumps(record))) == one


def test_an_image_without_boxes_is_never_embedded(photo: Any) -> None:
    class Unused:
        def embed(self, images: object) -> Any:
            raise AssertionError("nothing to mask")

    ground = Grounder(Finds(detections()), Unused(), ("cat",), settings())  # type: ignore[arg-type]
    (found,) = ground([GroundInput(photo, AnnotatedImage(256, 256, ()))])
    assert found.labels == () and found.num_queries == 1


def test_a_box_that_the_segmenter_sees_nothing_in_keeps_its_label() -> None:
    found = Label("cat", "cat", 0.9, (0.0, 0.0, 1.0, 1.0), None)
    record = labels_to_record(
        labels_from_record(
            {
                "image": {"image_id": 1, "width": 2, "height": 2},
                "labels": [{**BARE, "mask": None}],
                "annotations": [],
                "num_grid_masks": 0,
                "num_queries": 1,
                "dropped": {},
            }
        ),
        image_id=1,
        file_name="x",
    )
    assert record["labels"][0]["mask"] is None and found.mask is None
    with pytest.raises(ValueError, match="not a labels record"):
        labels_from_record({"image": {}})


BARE = {"label": "cat", "phrase": "cat", "score": 0.9, "box": [0, 0, 1, 1], "link_iou": None}
