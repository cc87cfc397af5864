from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, from_sa1b, to_sa1b
from maskmill.pipeline.rle import encode_mask


def _annotation(parent: int | None = None, left: int = 0) -> Annotation:
    mask = np.zeros((4, 6), bool)
    mask[1:3, left : left + 2] = True
    return Annotation(
        segmentation=encode_mask(mask),
        bbox_xywh=(float(left), 1.0, 1.0, 1.0),
        area_px=4,
        predicted_iou=0.9,
        stability_score=0.97,
        crop_box_xywh=(0.0, 0.0, 6.0, 4.0),
        point_xy=((1.5, 2.5),),
        output_token=2,
        parent=parent,
    )


@pytest.fixture
def annotated() -> AnnotatedImage:
    return AnnotatedImage(6, 4, (_annotation(parent=1), _annotation(left=2)), {"embed": 1.0})


def test_a_record_has_the_released_fields_and_ours(annotated: AnnotatedImage) -> None:
    record = to_sa1b(annotated, image_id=7, file_name="000000007.jpg")
    assert record["image"] == {"image_id": 7, "width": 6, "height": 4, "file_name": "000000007.jpg"}
    first, second = record["annotations"]
    assert set(first) == {
        *("id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box"),
        *("point_coords", "output_token", "parent"),
    }
    assert first["parent"] == second["id"] == 700_001
    assert second["parent"] is None
    assert first["segmentation"]["size"] == [4, 6]
    assert isinstance(first["segmentation"]["counts"], str)


def test_a_record_comes_back_through_json(annotated: AnnotatedImage) -> None:
    record = json.loads(json.dumps(to_sa1b(annotated, image_id=7, file_name="a.jpg")))
    assert from_sa1b(record) == annotated  # seconds by step are no data


def test_a_record_of_the_released_dataset_has_neither_token_nor_parent(annotated: AnnotatedImage) -> None:
    record = to_sa1b(annotated, image_id=7, file_name="a.jpg")
    for row in record["annotations"]:
        del row["output_token"], row["parent"]
    back = from_sa1b(record)
    assert [(row.output_token, row.parent) for row in back.annotations] == [(None, None)] * 2


def _drop_area(record: dict[str, Any]) -> None:
    del record["annotations"][0]["area"]


def _other_size(record: dict[str, Any]) -> None:
    record["image"]["width"] = 5


def _unknown_parent(record: dict[str, Any]) -> None:
    record["annotations"][0]["parent"] = 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_drop_area, "area"), (_other_size, "has size"), (_unknown_parent, "names parent 3")],
)
def test_bad_records_say_what_is_wrong(annotated: AnnotatedImage, spoil: Any, message: str) -> None:
    record = to_sa1b(annotated, image_id=7, file_name="a.jpg")
    spoil(record)
    with pytest.raises(ValueError, match=message):
        from_sa1b(record)


def test_a_parent_is_another_annotation(annotated: AnnotatedImage) -> None:
    for parent in (0, 2, -1):
        with pytest.raises(ValueError, match="has parent"):
            AnnotatedImage(6, 4, (_annotation(parent=parent), _annotation()))


def test_ids_are_unique_and_not_negative(annotated: AnnotatedImage) -> None:
    with pytest.raises(ValueError, match="negative"):
        to_sa1b(annotated, image_id=-1, file_name="a.jpg")
    crowd = dataclasses.replace(annotated, annotations=(_annotation(),) * 100_001)
    with pytest.raises(ValueError, match="at most"):
        to_sa1b(crowd, image_id=0, file_name="a.jpg")
