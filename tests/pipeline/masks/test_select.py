"""From candidates to annotations, by hand-made masks."""

from __future__ import annotations

import numpy as np

from maskmill.pipeline.masks.measure import MaskBatch, object_column
from maskmill.pipeline.masks.select import select_masks
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.settings import MaskSettings

HEIGHT, WIDTH = 60, 80
Box = tuple[int, int, int, int]


def candidates(*rows: tuple[Box, float, float, int]) -> MaskBatch:
    """Filled boxes (inclusive corners) with predicted IoU, stability and crop."""
    masks = []
    for (x0, y0, x1, y1), *_ in rows:
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
        masks.append(mask)
    return MaskBatch(
        predicted_iou_N=np.array([row[1] for row in rows], np.float32),
        stability_N=np.array([row[2] for row in rows], np.float32),
        area_px_N=np.array([mask.sum() for mask in masks], np.int64),
        box_xyxy_N4=np.array([row[0] for row in rows], np.int64),
        point_xy_N2=np.zeros((len(rows), 2)),
        output_token_N=np.arange(len(rows)),
        crop_N=np.array([row[3] for row in rows]),
        mask_N=object_column([encode_mask(mask) for mask in masks]),
    )


def kept(batch: MaskBatch, settings: MaskSettings) -> list[int]:
    """Rows that became annotations, in their order."""
    found = select_masks(batch, settings, height=HEIGHT, width=WIDTH)
    return [annotation.output_token or 0 for annotation in found.annotations]


def test_predicted_iou_must_pass_its_threshold_and_stability_may_equal_it() -> None:
    batch = candidates(
        ((0, 0, 9, 9), 0.5, 0.9, 0), ((20, 0, 29, 9), 0.51, 0.75, 0), ((40, 0, 49, 9), 0.9, 0.74, 0)
    )
    assert kept(batch, MaskSettings(predicted_iou=0.5, stability=0.75)) == [1]


def test_of_two_alike_the_better_stays_and_comes_first() -> None:
    batch = candidates(
        ((0, 0, 19, 19), 0.90, 1.0, 0), ((0, 0, 19, 18), 0.95, 1.0, 0), ((40, 0, 59, 19), 0.99, 1.0, 0)
    )
    assert kept(batch, MaskSettings(predicted_iou=0.5, stability=0.5)) == [2, 1]
    assert kept(batch, MaskSettings(predicted_iou=0.5, stability=0.5, box_nms=1.0)) == [2, 1, 0]


def test_across_crops_the_mask_of_the_smaller_crop_stays() -> None:
    batch = candidates(((0, 0, 19, 19), 0.99, 1.0, 0), ((0, 0, 19, 18), 0.9, 1.0, 1))
    settings = MaskSettings(predicted_iou=0.5, stability=0.5, crop_layers=1)
    assert kept(batch, settings) == [1]
    (one,) = select_masks(batch, settings, height=HEIGHT, width=WIDTH).annotations
    assert one.crop_box_xywh[2] < WIDTH and one.bbox_xywh == (0.0, 0.0, 19.0, 18.0)


def test_a_mask_of_nearly_everything_goes_by_coverage() -> None:
    whole = ((0, 0, WIDTH - 1, HEIGHT - 1), 0.99, 1.0, 0)
    batch = candidates(whole, ((0, 0, 9, 9), 0.9, 1.0, 0))
    assert kept(batch, MaskSettings(predicted_iou=0.5, stability=0.5)) == [0, 1]
    assert kept(batch, MaskSettings(predicted_iou=0.5, stability=0.5, max_coverage=1.0)) == [1]


def test_a_mask_too_small_is_kept_as_it_is_or_dropped() -> None:
    batch = candidates(((0, 0, 4, 4), 0.99, 1.0, 0), ((20, 20, 49, 49), 0.9, 1.0, 0))
    settings = {"predicted_iou": 0.5, "stability": 0.5, "min_area_px": 26}
    assert sorted(kept(batch, MaskSettings(**settings))) == [0, 1]  # type: ignore[arg-type]
    assert kept(batch, MaskSettings(**settings, drop_small=True)) == [1]  # type: ignore[arg-type]


def test_parents_are_the_smallest_that_hold_a_mask() -> None:
    batch = candidates(
        ((0, 0, 59, 49), 0.9, 1.0, 0), ((5, 5, 40, 40), 0.8, 1.0, 0), ((10, 10, 20, 20), 0.7, 1.0, 0)
    )
    found = select_masks(
        batch, MaskSettings(predicted_iou=0.5, stability=0.5), height=HEIGHT, width=WIDTH
    ).annotations
    assert [annotation.parent for annotation in found] == [None, 0, 1]
