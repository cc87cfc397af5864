"""Masks drawn by hand."""

from __future__ import annotations

import numpy as np

from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.rle import encode_mask


def mask(*rectangles: tuple[int, int, int, int]) -> Annotation:
    """A mask of rectangles (left, top, right, bottom; right and bottom excluded) in an image of 20x10 px."""
    mask_HW = np.zeros((10, 20), np.bool_)
    for left, top, right, bottom in rectangles:
        mask_HW[top:bottom, left:right] = True
    rows, columns = np.nonzero(mask_HW)
    x, y = float(columns.min()), float(rows.min())
    return Annotation(
        segmentation=encode_mask(mask_HW),
        bbox_xywh=(x, y, float(columns.max()) - x, float(rows.max()) - y),
        area_px=int(mask_HW.sum()),
        predicted_iou=0.9,
        stability_score=0.9,
        crop_box_xywh=(0.0, 0.0, 20.0, 10.0),
        point_xy=(),
    )
