"""Whether two sides found the same masks: pairs by IoU, boxes, stability, and what one side lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.settings import MaskSettings

PAIR_IOU = 0.5


def agreement(ours: AnnotatedImage, theirs: AnnotatedImage, settings: MaskSettings) -> dict[str, Any]:
    """Counts, IoUs and boxes of the pairs, and the masks that one side lacks.

    `max_stability_px` is the largest difference of stability scores times the union that the score divides by
    (taken as area / stability, which it does not exceed).
    """
    iou_OT = pair_ious(ours.annotations, theirs.annotations)
    rows, columns = linear_sum_assignment(-iou_OT)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if iou_OT[i, j] > PAIR_IOU]
    alone = set(range(len(ours.annotations))) - {i for i, _ in pairs}
    missed = set(range(len(theirs.annotations))) - {j for _, j in pairs}
    both = [(ours.annotations[i], theirs.annotations[j]) for i, j in pairs]
    return {
        "masks_reference": len(theirs.annotations),
        "masks_ours": len(ours.annotations),
        "pair_ious": [float(iou_OT[pair]) for pair in pairs],
        "boxes_equal": sum(mine.bbox_xywh == other.bbox_xywh for mine, other in both),
        "max_stability_px": max((_stability_px(mine, other) for mine, other in both), default=0.0),
        "only_reference": [explain(theirs.annotations[place], theirs, settings) for place in sorted(missed)],
        "only_ours": [explain(ours.annotations[place], ours, settings) for place in sorted(alone)],
    }


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of several images: sums, the worst pair, all lists."""
    ious = [iou for result in results for iou in result["pair_ious"]]
    alone = [mask for result in results for name in ("only_reference", "only_ours") for mask in result[name]]
    return {
        "masks_reference": sum(result["masks_reference"] for result in results),
        "masks_ours": sum(result["masks_ours"] for result in results),
        "pairs": len(ious),
        "min_iou": min(ious, default=None),
        "mean_iou": round(float(np.mean(ious)), 6) if ious else None,
        "pairs_below_0.9999": sum(iou < 0.9999 for iou in ious),
        "boxes_equal": sum(result["boxes_equal"] for result in results),
        "max_stability_px": round(max((result["max_stability_px"] for result in results), default=0.0), 2),
        "farthest_from_threshold": max((mask["distance_to_threshold"] for mask in alone), default=None),
        "only_reference": [mask for result in results for mask in result["only_reference"]],
        "only_ours": [mask for result in results for mask in result["only_ours"]],
    }


def pair_ious(first: Sequence[Annotation], second: Sequence[Annotation]) -> npt.NDArray[np.float64]:
    """float64[len(first), len(second)]."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    coded = [[annotation.segmentation.to_coco() for annotation in side] for side in (first, second)]
    ious: npt.NDArray[np.float64] = coco.iou(coded[0], coded[1], [0] * len(second))
    return ious


def _stability_px(mine: Annotation, other: Annotation) -> float:
    union_px = other.area_px / other.stability_score if other.stability_score else other.area_px
    return abs(mine.stability_score - other.stability_score) * union_px


def explain(mask: Annotation, image: AnnotatedImage, settings: MaskSettings) -> dict[str, Any]:
    """A mask's distances to the thresholds that may have dropped it on the other side."""
    boxes = [list(other.bbox_xywh) for other in image.annotations if other is not mask]
    box_ious = coco.iou([list(mask.bbox_xywh)], boxes, [0] * len(boxes))[0] if boxes else [0.0]
    distances = {
        "predicted_iou": abs(mask.predicted_iou - settings.predicted_iou),
        "stability": abs(mask.stability_score - settings.stability),
        "box_nms": min(abs(float(iou) - settings.box_nms) for iou in box_ious),
    }
    if settings.max_coverage is not None:
        distances["coverage"] = abs(mask.area_px / image.width / image.height - settings.max_coverage)
    return {
        "bbox_xywh": mask.bbox_xywh,
        "area_px": mask.area_px,
        "distance_to_threshold": min(distances.values()),
        **{name: round(value, 7) for name, value in distances.items()},
    }
