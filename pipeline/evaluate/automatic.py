"""Are automatic masks masks of something? For pictures that aren't labelled completely.

Masks of which most lies where nothing is labelled can't be judged, and are counted only. A mask of which
most lies in labelled area is right where its IoU is at least 0.5 with a label, with the union of the
labels that it mostly covers (a crowd that was labelled one by one), or with a part of a label: a connected
piece of one that others cut apart. `label_share` is the stricter figure: with a label as it is.

Shapes: K masks, N labels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from maskmill.pipeline.evaluate.truth import Bools, Truth

LEAST_IOU = 0.5


@dataclass(frozen=True)
class AutomaticFigures:
    """What the automatic masks of some pictures are worth.

    Attributes:
        pictures: how many.
        masks_per_picture: mean.
        fewest: masks of the picture with the fewest.
        judged: masks that lie mostly in labelled area.
        right_share: of them, those that meet a label, a union or a part of one.
        label_share: of them, those that meet a label.
        found_share: of the labels, those that a mask meets.
    """

    pictures: int
    masks_per_picture: float
    fewest: int
    judged: int
    right_share: float
    label_share: float
    found_share: float


@dataclass(frozen=True, eq=False)
class _Judged:
    """One picture's masks: bool[K] each, but `found_N`."""

    is_judged_K: NDArray[np.bool_]
    is_right_K: NDArray[np.bool_]
    is_label_K: NDArray[np.bool_]
    found_N: NDArray[np.bool_]


def automatic_figures(masks: Sequence[Bools], pictures: Sequence[Truth]) -> AutomaticFigures:
    """Judges automatic masks.

    Args:
        masks: bool[K, H, W] of each picture.
        pictures: with their labels, in the same order.

    Raises:
        ValueError: no pictures, or another number of them.
    """
    if not pictures or len(masks) != len(pictures):
        raise ValueError(f"masks of {len(masks)} pictures for {len(pictures)} pictures: give each its own")
    judged = [_judge(some, picture.masks_NHW) for some, picture in zip(masks, pictures, strict=True)]
    counts = [len(some) for some in masks]
    number = sum(int(one.is_judged_K.sum()) for one in judged)
    labels = sum(len(one.found_N) for one in judged)
    return AutomaticFigures(
        len(pictures),
        float(np.mean(counts)),
        min(counts),
        number,
        sum(int((one.is_right_K & one.is_judged_K).sum()) for one in judged) / max(1, number),
        sum(int((one.is_label_K & one.is_judged_K).sum()) for one in judged) / max(1, number),
        sum(int(one.found_N.sum()) for one in judged) / max(1, labels),
    )


def _judge(masks_KHW: Bools, labels_NHW: Bools) -> _Judged:
    none, count = np.zeros(len(masks_KHW), np.bool_), len(labels_NHW)
    if not len(masks_KHW) or not count:
        return _Judged(none, none, none, np.zeros(count, np.bool_))
    kept, truth = masks_KHW.reshape(len(masks_KHW), -1), labels_NHW.reshape(count, -1)
    common_KN = kept.astype(np.float32) @ truth.T.astype(np.float32)
    area_K, area_N = kept.sum(1), truth.sum(1)
    iou_KN = common_KN / (area_K[:, None] + area_N - common_KN)
    is_judged_K = (kept & truth.any(0)).sum(1) > 0.5 * area_K
    is_label_K = iou_KN.max(1) >= LEAST_IOU
    is_right_K = is_label_K.copy()
    for k in np.flatnonzero(is_judged_K & ~is_label_K):
        union = truth[common_KN[k] > 0.5 * area_N].any(0)
        pieces = _pieces(labels_NHW[int(common_KN[k].argmax())])
        is_right_K[k] = max(_iou(kept[k], other) for other in (union, *pieces)) >= LEAST_IOU
    return _Judged(is_judged_K, is_right_K, is_label_K, (iou_KN >= LEAST_IOU).any(0))


def _pieces(label_HW: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """A label's connected pieces, flat."""
    numbered, count = ndimage.label(label_HW)
    return [(numbered == number).ravel() for number in range(1, count + 1)]


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
