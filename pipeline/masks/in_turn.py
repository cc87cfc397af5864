"""Suppression that measures only masks that it may keep: the same masks stay, most are never measured.

Greedy suppression goes down the masks by predicted IoU. A mask whose box overlaps a kept one's by more than
the limit goes, whatever its stability and area; so these need not be known. A mask is measured in the first
round in which no better mask that overlaps it is undecided any more:

    (1)  ready = undecided, and no undecided mask before it overlaps it
    (2)  of the ready, those that pass the thresholds are kept
    (3)  what a kept mask overlaps is no longer undecided

That is as few as any order could measure, and a round's masks are measured side by side. Boxes of all are
known (upsample.py, `boxes`); their overlap is torchvision's, to the last bit.

What it does not know: candidates. Where they are stored, all masks are measured (automask.py).

Shape suffixes: N masks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maskmill.pipeline.masks.measure import Bools, Ints, MaskBatch, concatenate


def overlapping(box_xyxy_N4: Ints, max_iou: float) -> Bools:
    """bool[N, N]: which pairs of boxes have an IoU above the limit, as torchvision's `nms` computes it.

    Args:
        box_xyxy_N4: corners, taken as continuous ones; a box without area overlaps nothing.
        max_iou: the limit.
    """
    boxes = box_xyxy_N4.astype(np.float32)
    near_N12, far_N12 = boxes[:, None, :2], boxes[:, None, 2:]
    sides_NN2 = np.minimum(far_N12, boxes[None, :, 2:]) - np.maximum(near_N12, boxes[None, :, :2])
    inner_NN = np.maximum(sides_NN2, np.float32(0)).prod(axis=2)
    area_N = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    with np.errstate(invalid="ignore"):  # 0 / 0: two boxes without area
        iou_NN = inner_NN / (area_N[:, None] + area_N[None, :] - inner_NN)
    above: Bools = iou_NN.astype(np.float64) > max_iou
    return above


def suppress_in_turn(
    batch: MaskBatch,
    *,
    max_iou: float,
    measured: Callable[[MaskBatch], MaskBatch],
    passes: Callable[[MaskBatch], Bools],
) -> MaskBatch:
    """What suppression keeps of the masks that pass, best first.

    Args:
        batch: N masks of one crop with boxes and predicted IoU, which passes already.
        max_iou: a mask whose box has an IoU above this with a kept one's is dropped.
        measured: gives rows their areas and stability.
        passes: bool[N], which measured rows pass all thresholds.
    """
    batch = batch[np.argsort(-batch.predicted_iou_N, kind="stable")]
    before_NN = np.tril(overlapping(batch.box_xyxy_N4, max_iou), -1)  # row: the better masks that overlap it
    undecided_N = np.ones(len(batch), bool)
    kept: list[tuple[int, MaskBatch]] = []
    while undecided_N.any():
        # (1)
        ready = np.flatnonzero(undecided_N & ~(before_NN & undecided_N).any(axis=1))
        undecided_N[ready] = False

        # (2)
        found = measured(batch[ready])
        good = passes(found)
        kept += [(int(ready[place]), found[np.array([place])]) for place in np.flatnonzero(good)]

        # (3)
        undecided_N &= ~before_NN[:, ready[good]].any(axis=1)
    return concatenate([row for _, row in sorted(kept, key=lambda one: one[0])])
