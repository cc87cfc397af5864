"""Panoptic quality: how well two maps of segments agree, each pixel in one segment at most.

    PQ = sum of the IoU of matched segments / (matched + half of the unmatched of both)  =  SQ x RQ

A segment of one map matches one of the other where their IoU is above 0.5; then neither matches any other.
Maps are made of masks that may overlap: the smaller lies on the larger (masks/layers.py). Segments have no
class here. Pixels that the truth gives to nothing count as nothing: a segment most of whose pixels are there
is unmatched.

Source: Kirillov et al., Panoptic Segmentation (2019), section 4. Its rule for void pixels needs a truth that
marks them, and masks of objects don't.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.masks.layers import painted
from maskmill.pipeline.rle import Rle

MATCHED = 0.5


@dataclass(frozen=True)
class PanopticCounts:
    """What a map of segments has in common with the true one; counts add up over images.

    Attributes:
        iou: sum over matched segments.
        matched: segments of both that match.
        false: ours that match none.
        missed: true ones that match none.
    """

    iou: float = 0.0
    matched: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        return PanopticCounts(
            self.iou + other.iou,
            self.matched + other.matched,
            self.false + other.false,
            self.missed + other.missed,
        )

    @property
    def sq(self) -> float:
        """Mean IoU of matched segments; NaN without any."""
        return self.iou / self.matched if self.matched else float("nan")

    @property
    def rq(self) -> float:
        """F1 of finding segments; NaN where there are none at all."""
        whole = self.matched + (self.false + self.missed) / 2
        return self.matched / whole if whole else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality; NaN where there are no segments at all."""
        whole = self.matched + (self.false + self.missed) / 2
        return self.iou / whole if whole else float("nan")


def panoptic_counts(ours_HW: NDArray[np.uint32], truth_HW: NDArray[np.uint32]) -> PanopticCounts:
    """Compares two maps of one image; 0 is no segment.

    Args:
        ours_HW, truth_HW: uint32[H, W].

    Raises:
        ValueError: maps of two sizes.
    """
    if ours_HW.shape != truth_HW.shape:
        raise ValueError(f"maps of two sizes: {ours_HW.shape} and {truth_HW.shape}")

    # Pixels of each pair of segments, and of each segment alone
    pairs = ours_HW.astype(np.uint64) << np.uint64(32) | truth_HW.astype(np.uint64)
    values_P, pixels_P = np.unique(pairs, return_counts=True)
    ours_P, truth_P = values_P >> np.uint64(32), values_P & np.uint64(0xFFFFFFFF)
    ours = dict(zip(*(part.tolist() for part in np.unique(ours_HW, return_counts=True)), strict=True))
    truth = dict(zip(*(part.tolist() for part in np.unique(truth_HW, return_counts=True)), strict=True))

    iou_sum, matched = 0.0, 0
    for one, other, shared in zip(ours_P.tolist(), truth_P.tolist(), pixels_P.tolist(), strict=True):
        if one and other:
            iou = shared / (ours[one] + truth[other] - shared)
            if iou > MATCHED:
                iou_sum, matched = iou_sum + iou, matched + 1
    num_ours, num_truth = len(ours.keys() - {0}), len(truth.keys() - {0})
    return PanopticCounts(iou_sum, matched, num_ours - matched, num_truth - matched)


def panoptic_quality(pairs: Iterable[tuple[Sequence[Rle], Sequence[Rle]]]) -> PanopticCounts:
    """Compares the masks of many images with the true ones.

    Args:
        pairs: ours and the true masks of each image.

    Raises:
        ValueError: masks of two sizes in one image.
    """
    counts = PanopticCounts()
    for ours, truth in pairs:
        if ours or truth:
            first = (ours or truth)[0]
            maps = [
                painted(masks, range(1, len(masks) + 1), height=first.height, width=first.width)
                for masks in (ours, truth)
            ]
            counts += panoptic_counts(*maps)
    return counts
