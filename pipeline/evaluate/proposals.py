"""What a point grid's masks are worth at each pair of thresholds: precision and recall against true masks.

`candidates_of` asks every grid point once and keeps, for each of the masks that come out, only what
filtering needs: its predicted IoU, stability, box and IoU with the true masks. `sweep` then filters and
suppresses as `SamAutomaticMaskGenerator` does, for as many thresholds as wanted, at no further cost.

A mask that matches no true mask counts as wrong, though it may outline something the truth leaves out (a
generated scene's background, say): precision is a lower bound.

Shapes: C candidates, N true masks, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torch import Tensor
from torchvision.ops import batched_nms

from maskmill.pipeline.evaluate.points import Pictured

PREDICTED_IOUS = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.88)
STABILITIES = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Candidates:
    """One picture's grid masks before any filter, empty ones left out.

    Attributes:
        predicted_iou_C: float32[C].
        stability_C: float32[C].
        box_C4: float32[C, 4], x0, y0, x1, y1 in pixels.
        iou_CN: float32[C, N], with the true masks.
    """

    predicted_iou_C: Tensor
    stability_C: Tensor
    box_C4: Tensor
    iou_CN: Tensor


@dataclass(frozen=True)
class SweepRow:
    """Figures of one pair of thresholds.

    Attributes:
        predicted_iou: threshold, kept when above.
        stability: threshold, kept when at least.
        masks_per_picture: kept after box NMS.
        precision_50: share of kept masks with IoU of at least 0.5 with a true mask; precision_75 likewise.
        recall_50: share of true masks with IoU of at least 0.5 with a kept mask; recall_75 likewise.
    """

    predicted_iou: float
    stability: float
    masks_per_picture: float
    precision_50: float
    recall_50: float
    precision_75: float
    recall_75: float

    @property
    def f_50(self) -> float:
        """Harmonic mean of precision and recall at IoU 0.5."""
        return _f(self.precision_50, self.recall_50)

    @property
    def f_75(self) -> float:
        """Harmonic mean of precision and recall at IoU 0.75."""
        return _f(self.precision_75, self.recall_75)


def _f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@torch.no_grad()
def candidates_of(
    sam: Sam, picture: Pictured, points_per_side: int = 16, stability_offset: float = 1.0, batch: int = 64
) -> Candidates:
    """Ask a picture's point grid.

    Args:
        sam: the segmenter.
        picture: uint8[H, W, 3] and bool[N, H, W].
        points_per_side: the grid is that many points squared.
        stability_offset: logits by which the mask threshold is moved for the stability score.
        batch: points at a time.

    Returns:
        All non-empty masks of all points, three a point.
    """
    predictor = SamPredictor(sam)
    predictor.set_image(picture.image)
    height, width = picture.image.shape[:2]
    grid = build_point_grid(points_per_side) * [width, height]
    points = torch.from_numpy(predictor.transform.apply_coords(grid, (height, width))).float()[:, None]

    truth_NK = torch.from_numpy(picture.masks_NHW).flatten(1).float()
    parts = []
    for start in range(0, len(points), batch):
        some = points[start : start + batch]
        labels = torch.ones(some.shape[:2], dtype=torch.int64)
        logits, predicted, _ = predictor.predict_torch(
            some, labels, multimask_output=True, return_logits=True
        )

        # IoU with every true mask
        logits_CHW = logits.flatten(0, 1)
        masks_CHW = logits_CHW > sam.mask_threshold
        area_C = masks_CHW.flatten(1).sum(1)
        common = masks_CHW.flatten(1).float() @ truth_NK.T
        iou_CN = common / (area_C[:, None] + truth_NK.sum(1) - common).clamp(min=1)

        stability_C = calculate_stability_score(logits_CHW, sam.mask_threshold, stability_offset)
        keep = area_C > 0
        box_C4 = batched_mask_to_box(masks_CHW).float()
        parts.append((predicted.flatten()[keep], stability_C[keep], box_C4[keep], iou_CN[keep]))

    return Candidates(*(torch.cat(column) for column in zip(*parts, strict=True)))


def sweep(
    pictures: Sequence[Candidates],
    predicted_ious: Sequence[float] = PREDICTED_IOUS,
    stabilities: Sequence[float] = STABILITIES,
    box_nms: float = 0.7,
) -> Iterator[SweepRow]:
    """Filter and suppress at every pair of thresholds.

    Args:
        pictures: from `candidates_of`.
        predicted_ious: thresholds on predicted IoU.
        stabilities: thresholds on the stability score.
        box_nms: IoU of boxes above which the lower predicted IoU goes.

    Yields:
        A row a pair, figures pooled over all pictures.
    """
    for predicted_iou in predicted_ious:
        for stability in stabilities:
            yield _row(pictures, predicted_iou, stability, box_nms)


def _row(pictures: Sequence[Candidates], predicted_iou: float, stability: float, box_nms: float) -> SweepRow:
    kept = truths = 0
    right, found = [0, 0], [0, 0]
    for one in pictures:
        pick = torch.nonzero((one.predicted_iou_C > predicted_iou) & (one.stability_C >= stability))[:, 0]
        boxes, scores = one.box_C4[pick], one.predicted_iou_C[pick]
        iou_KN = one.iou_CN[pick[batched_nms(boxes, scores, torch.zeros_like(pick), box_nms)]]

        kept += len(iou_KN)
        truths += iou_KN.shape[1]
        if iou_KN.numel():
            for i, least in enumerate((0.5, 0.75)):
                right[i] += int((iou_KN.amax(1) >= least).sum())
                found[i] += int((iou_KN.amax(0) >= least).sum())

    return SweepRow(
        predicted_iou,
        stability,
        kept / max(1, len(pictures)),
        right[0] / max(1, kept),
        found[0] / max(1, truths),
        right[1] / max(1, kept),
        found[1] / max(1, truths),
    )
