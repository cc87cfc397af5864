"""Boundary IoU against its authors' erosion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskmill.pipeline.evaluate.boundary import boundary_iou, boundary_of
from tests.pipeline.evaluate.blocks import blocks


def test_boundary_is_the_authors_erosion() -> None:
    mask = blocks(5, 1, 96)[0] | (np.hypot(*np.mgrid[-48:48, -48:48]) < 30)
    depth = max(1, round(0.02 * float(np.hypot(96, 96))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=depth)[1:-1, 1:-1]
    assert np.array_equal(boundary_of(mask), mask & (eroded == 0))
    assert boundary_iou(mask, mask) == 1.0
    assert boundary_iou(np.zeros_like(mask), np.zeros_like(mask)) == 0.0
    assert boundary_iou(np.zeros_like(mask), mask) == 0.0
    with pytest.raises(ValueError, match="one size"):
        boundary_iou(mask, mask[:-1])
