"""What the candidates that suppression drops say: votes for the masks that stay, and what nobody stands for.

Many prompts of a grid find the same thing. Suppression keeps the best of them; how many there were, how
sure, and whether the prompts that lie on the thing agreed, would be lost with the rest. Of each candidate
only its box, its predicted IoU, its prompt and its output are read, which are known before any mask is
measured:

    (1)  a candidate votes for a mask where their boxes have an IoU above `AGREES`; above `NEAR` it is near
    (2)  other outputs of the mask's own prompt: how alike their boxes are
    (3)  of the prompts that lie in the mask's box, how many there are, and how many have a candidate
    (4)  candidates near no mask, suppressed among themselves, are passed over: something may be there

Candidates of all crops vote together. It knows boxes only: two masks of one box are one to it, as they are to
suppression; and none of the candidates whose predicted IoU failed.

Shape suffixes: K masks, N candidates, P prompts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.annotation import AnnotatedImage, PassedOver, Votes, to_xywh
from maskmill.pipeline.masks.geometry import crop_boxes, layer_grids
from maskmill.pipeline.masks.measure import Bools, Floats32, Ints, MaskBatch, concatenate, suppress
from maskmill.pipeline.settings.masks import MaskSettings

AGREES = 0.7
NEAR = 0.4
MOST_PASSED_OVER = 64
DIGITS = 4
"""Of stored numbers."""

Points = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """An image's candidates whose predicted IoU passed, whatever became of them.

    Args:
        batch: N of them, of all crops; their masks are not looked at.
        points_xy_P2: all prompts, in px of the image.
    """

    batch: MaskBatch
    points_xy_P2: Points


def without_masks(batch: MaskBatch) -> MaskBatch:
    """The batch, holding no logits and no run lengths."""
    return batch.replace(mask_N=np.empty(len(batch), object))


def prompts_of(settings: MaskSettings, height: int, width: int) -> list[Points]:
    """Each crop's prompts, float64[P, 2] in px of the image.

    Args:
        settings: grid and crops.
        height, width: of the image in px.
    """
    grids = layer_grids(settings)
    crops = crop_boxes(height, width, settings.crop_layers, settings.crop_overlap)
    return [
        grids[crop.layer] * np.array([crop.width, crop.height]) + np.array(crop.box_xyxy[:2])
        for crop in crops
    ]


def neighbours_of(batches: Sequence[MaskBatch], points: Sequence[Points]) -> Neighbours:
    """Those of an image.

    Args:
        batches: candidates of each crop.
        points: each crop's prompts, float64[P, 2] in px of the image.
    """
    none = [np.zeros((0, 2))]
    return Neighbours(concatenate([without_masks(one) for one in batches]), np.concatenate([*none, *points]))


def box_iou(first_K4: Ints, second_N4: Ints) -> Floats32:
    """float32[K, N] of boxes with inclusive corners."""
    first, second = first_K4.astype(np.float32), second_N4.astype(np.float32)
    near_KN2 = np.maximum(first[:, None, :2], second[None, :, :2])
    far_KN2 = np.minimum(first[:, None, 2:], second[None, :, 2:]) + np.float32(1)
    common_KN = np.maximum(far_KN2 - near_KN2, np.float32(0)).prod(axis=2)
    area_K, area_N = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (first, second))
    iou_KN: Floats32 = common_KN / (area_K[:, None] + area_N[None, :] - common_KN)
    return iou_KN


def with_votes(image: AnnotatedImage, neighbours: Neighbours) -> AnnotatedImage:
    """The image, each mask with its votes, and with what was passed over.

    Args:
        image: masks selected from these candidates.
        neighbours: of the image.
    """
    batch = neighbours.batch
    box_xyxy_K4 = np.array(
        [(x, y, x + w, y + h) for x, y, w, h in (one.bbox_xywh for one in image.annotations)], np.int64
    ).reshape(-1, 4)
    iou_KN = box_iou(box_xyxy_K4, batch.box_xyxy_N4)

    votes = _votes(image, box_xyxy_K4, iou_KN, neighbours)
    annotations = [
        dataclasses.replace(one, votes=own) for one, own in zip(image.annotations, votes, strict=True)
    ]
    is_near_N: Bools = np.asarray((iou_KN > NEAR).any(axis=0))
    passed_over = _passed_over(batch, is_near_N)
    return dataclasses.replace(image, annotations=tuple(annotations), passed_over=passed_over)


def _votes(image: AnnotatedImage, box_xyxy_K4: Ints, iou_KN: Floats32, neighbours: Neighbours) -> list[Votes]:
    batch = neighbours.batch
    agrees_KN = iou_KN > AGREES  # (1)
    near_K = (iou_KN > NEAR).sum(axis=1)
    iou_sum_K = (agrees_KN * batch.predicted_iou_N).sum(axis=1)
    point_N = batch.point_xy_N2 @ np.array([1.0, 1j])

    # (2)
    point_K = np.array([complex(*one.point_xy[0]) for one in image.annotations])
    token_K = np.array([-1 if one.output_token is None else one.output_token for one in image.annotations])
    sibling_KN = (point_K[:, None] == point_N[None, :]) & (token_K[:, None] != batch.output_token_N[None, :])
    own_K = (iou_KN * sibling_KN).sum(axis=1) / np.maximum(sibling_KN.sum(axis=1), 1)

    # (3)
    inside_K = _inside(box_xyxy_K4, batch.point_xy_N2).sum(axis=1)
    asked_K = _inside(box_xyxy_K4, neighbours.points_xy_P2).sum(axis=1)
    return [
        Votes(
            count=int(agrees_KN[row].sum()),
            iou_sum=round(float(iou_sum_K[row]), DIGITS),
            near=int(near_K[row]),
            prompts=len(np.unique(point_N[agrees_KN[row]])),
            inside=int(inside_K[row]),
            asked=int(asked_K[row]),
            own_outputs=round(float(own_K[row]), DIGITS),
        )
        for row in range(len(box_xyxy_K4))
    ]


def _inside(box_xyxy_K4: Ints, point_xy_N2: Points) -> Bools:
    """bool[K, N]: which points lie in which boxes."""
    x_N, y_N = point_xy_N2.T
    x0, y0, x1, y1 = box_xyxy_K4.T[:, :, None]
    inside: Bools = (x0 <= x_N) & (x_N < x1 + 1) & (y0 <= y_N) & (y_N < y1 + 1)
    return inside


def _passed_over(batch: MaskBatch, is_near_N: Bools) -> tuple[PassedOver, ...]:
    """(4), the surest first."""
    left = batch[~is_near_N]
    rows = suppress(left.box_xyxy_N4, left.predicted_iou_N, max_iou=NEAR)[:MOST_PASSED_OVER]
    count_K = (box_iou(left.box_xyxy_N4[rows], left.box_xyxy_N4) > AGREES).sum(axis=1)
    return tuple(
        PassedOver(
            to_xywh([float(side) for side in left.box_xyxy_N4[row]]),
            round(float(left.predicted_iou_N[row]), DIGITS),
            int(count),
        )
        for row, count in zip(rows, count_K, strict=True)
    )
