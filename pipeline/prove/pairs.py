"""Whether two sides found the same masks: pairs by IoU, boxes, stability, and what one side lacks.

A mask that one side lacks is explained by its distance to the nearest threshold (predicted IoU, stability,
coverage, and box IoU to the other masks for suppression): where two computations differ in a last digit, a
mask at a threshold may fall to either side, and others do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, BoxXywh
from maskmill.pipeline.settings import MaskSettings

PAIR_IOU = 0.5
EQUAL_IOU = 0.9999
AT_A_THRESHOLD = 1e-3
"""How far from a threshold a mask may lie that one side lacks, for both sides to be called the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alone:
    """A mask that the other side lacks.

    Attributes:
        bbox_xywh, area_px: of the mask.
        distances: threshold -> how far its score lies from it.
    """

    bbox_xywh: BoxXywh
    area_px: int
    distances: dict[str, float]

    @property
    def distance_to_threshold(self) -> float:
        """The nearest of them."""
        return min(self.distances.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """Two sides' masks of one image, or of several.

    Attributes:
        masks_reference, masks_ours: how many each side has.
        pair_ious: of each pair.
        boxes_equal: pairs whose boxes are.
        max_stability_px: the largest difference of stability scores times the union that the score divides by
            (taken as area / stability, which it does not exceed).
        only_reference, only_ours: what one side lacks.
    """

    masks_reference: int
    masks_ours: int
    pair_ious: tuple[float, ...]
    boxes_equal: int
    max_stability_px: float
    only_reference: tuple[Alone, ...]
    only_ours: tuple[Alone, ...]

    @property
    def min_iou(self) -> float | None:
        """Of the worst pair; None without pairs."""
        return min(self.pair_ious, default=None)

    @property
    def pairs_equal(self) -> int:
        """Pairs of at least `EQUAL_IOU`."""
        return sum(iou >= EQUAL_IOU for iou in self.pair_ious)

    @property
    def farthest_from_threshold(self) -> float | None:
        """Of the masks that one side lacks, the farthest from any threshold; None without such masks."""
        alone = (*self.only_reference, *self.only_ours)
        return max((mask.distance_to_threshold for mask in alone), default=None)

    @property
    def is_same(self) -> bool:
        """Every pair equal, boxes too, and nobody lacks a mask but at a threshold."""
        return (
            self.pairs_equal == self.boxes_equal == len(self.pair_ious)
            and (self.farthest_from_threshold or 0.0) <= AT_A_THRESHOLD
        )


def pair_up(ours: AnnotatedImage, theirs: AnnotatedImage, settings: MaskSettings) -> Pairing:
    """The masks of both sides of one image, each with its partner where it has one.

    Args:
        ours, theirs: of the same image.
        settings: whose thresholds both kept.
    """
    iou_OT = pair_ious(ours.annotations, theirs.annotations)
    rows, columns = linear_sum_assignment(-iou_OT)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if iou_OT[i, j] > PAIR_IOU]
    alone = set(range(len(ours.annotations))) - {i for i, _ in pairs}
    missed = set(range(len(theirs.annotations))) - {j for _, j in pairs}
    both = [(ours.annotations[i], theirs.annotations[j]) for i, j in pairs]
    return Pairing(
        masks_reference=len(theirs.annotations),
        masks_ours=len(ours.annotations),
        pair_ious=tuple(float(iou_OT[pair]) for pair in pairs),
        boxes_equal=sum(mine.bbox_xywh == other.bbox_xywh for mine, other in both),
        max_stability_px=max((_stability_px(mine, other) for mine, other in both), default=0.0),
        only_reference=tuple(explain(theirs.annotations[at], theirs, settings) for at in sorted(missed)),
        only_ours=tuple(explain(ours.annotations[at], ours, settings) for at in sorted(alone)),
    )


def merge(results: Sequence[Pairing]) -> Pairing:
    """Of several images: sums, the worst, all lists."""
    return Pairing(
        masks_reference=sum(one.masks_reference for one in results),
        masks_ours=sum(one.masks_ours for one in results),
        pair_ious=tuple(iou for one in results for iou in one.pair_ious),
        boxes_equal=sum(one.boxes_equal for one in results),
        max_stability_px=max((one.max_stability_px for one in results), default=0.0),
        only_reference=tuple(mask for one in results for mask in one.only_reference),
        only_ours=tuple(mask for one in results for mask in one.only_ours),
    )


def pair_ious(first: Sequence[Annotation], second: Sequence[Annotation]) -> npt.NDArray[np.float64]:
    """float64[len(first), len(second)]."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    coded = [[annotation.segmentation.to_coco() for annotation in side] for side in (first, second)]
    ious: npt.NDArray[np.float64] = coco.iou(coded[0], coded[1], [0] * len(second))
    return ious


def explain(mask: Annotation, image: AnnotatedImage, settings: MaskSettings) -> Alone:
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
    rounded = {name: round(value, 7) for name, value in distances.items()}
    return Alone(bbox_xywh=mask.bbox_xywh, area_px=mask.area_px, distances=rounded)


def _stability_px(mine: Annotation, other: Annotation) -> float:
    union_px = other.area_px / other.stability_score if other.stability_score else other.area_px
    return abs(mine.stability_score - other.stability_score) * union_px
