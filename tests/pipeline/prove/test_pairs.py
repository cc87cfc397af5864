"""Two sides' masks of an image: paired, counted, and what one side lacks explained by the thresholds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.prove.pairs import merge, pair_up
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.settings import MaskSettings

SETTINGS = MaskSettings(predicted_iou=0.88, stability=0.95, box_nms=0.7)


def square(left: int, side: int, *, predicted_iou: float = 0.95, stability: float = 0.97) -> Annotation:
    mask = np.zeros((40, 60), bool)
    mask[5 : 5 + side, left : left + side] = True
    return Annotation(
        segmentation=encode_mask(mask),
        bbox_xywh=(left, 5, side - 1, side - 1),
        area_px=side * side,
        predicted_iou=predicted_iou,
        stability_score=stability,
        crop_box_xywh=(0, 0, 60, 40),
        point_xy=((left + 1.0, 6.0),),
    )


def image(*annotations: Annotation) -> AnnotatedImage:
    return AnnotatedImage(60, 40, annotations)


def test_the_same_masks_in_another_order_are_the_same() -> None:
    found = pair_up(image(square(0, 10), square(30, 12)), image(square(30, 12), square(0, 10)), SETTINGS)
    assert found.is_same and found.pair_ious == (1.0, 1.0) and found.boxes_equal == 2
    assert found.farthest_from_threshold is None


def test_a_pixel_more_is_told_by_the_pair() -> None:
    found = pair_up(image(square(0, 10)), image(square(0, 11)), SETTINGS)
    assert not found.is_same and found.pairs_equal == 0
    assert found.min_iou == pytest.approx(100 / 121)


@pytest.mark.parametrize(("predicted_iou", "same"), [(0.8805, True), (0.9, False)])
def test_a_mask_that_one_side_lacks_counts_by_its_distance_to_a_threshold(
    predicted_iou: float, same: bool
) -> None:
    both = square(0, 10)
    found = pair_up(image(both, square(30, 12, predicted_iou=predicted_iou)), image(both), SETTINGS)
    assert found.is_same is same and (found.masks_ours, found.masks_reference) == (2, 1)
    (alone,) = found.only_ours
    assert alone.distances["predicted_iou"] == pytest.approx(predicted_iou - 0.88)
    assert alone.area_px == 144


def test_a_box_that_differs_is_not_the_same() -> None:
    moved = dataclasses.replace(square(0, 10), bbox_xywh=(0, 5, 10, 9))
    assert not pair_up(image(moved), image(square(0, 10)), SETTINGS).is_same


def test_several_images_are_summed_and_the_worst_counts() -> None:
    fine = pair_up(image(square(0, 10)), image(square(0, 10)), SETTINGS)
    off = pair_up(image(square(0, 10), square(30, 9)), image(square(0, 11)), SETTINGS)
    both = merge([fine, off])
    assert (both.masks_ours, both.masks_reference, both.pairs_equal, len(both.only_ours)) == (3, 2, 1, 1)
    assert not both.is_same and both.min_iou == off.min_iou
    assert pair_up(image(), image(), SETTINGS).is_same
