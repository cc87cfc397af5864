"""How much two sets of masks of one picture agree: each mask's best partner in the other set.

It serves two questions: do two generations say the same (`agreement`), and how good are a generation's masks
against corrected ones (`audit`: the share above 0.9 and 0.75 IoU)?

Source of the audit: Kirillov et al., Segment Anything (2023), section 5, Mask quality.

Shapes: N masks of the first set, M of the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle

Floats = NDArray[np.float64]


def iou_matrix(first: Sequence[Rle], second: Sequence[Rle]) -> Floats:
    """IoU of all pairs: float64[N, M].

    Raises:
        ValueError: masks of two sizes.
    """
    if len({(rle.height, rle.width) for rle in (*first, *second)}) > 1:
        raise ValueError("masks of two sizes: compare masks of one picture")
    if not first or not second:
        return np.zeros((len(first), len(second)))
    iou: Floats = np.asarray(
        coco_mask.iou([rle.to_coco() for rle in first], [rle.to_coco() for rle in second], [0] * len(second))
    )
    return iou.reshape(len(first), len(second))


def best_partners(first: Sequence[Rle], second: Sequence[Rle]) -> tuple[Floats, Floats]:
    """Each mask's highest IoU with the other set; 0 where that is empty.

    Returns:
        float64[N] of the first, float64[M] of the second.
    """
    iou_NM = iou_matrix(first, second)
    return (
        iou_NM.max(axis=1) if second else np.zeros(len(first)),
        iou_NM.max(axis=0) if first else np.zeros(len(second)),
    )


def share_above(iou_N: Floats, threshold: float) -> float:
    """The share of masks with an IoU above a threshold; NaN without masks."""
    return float((iou_N > threshold).mean()) if len(iou_N) else float("nan")
