"""Suppression in turn against measuring all, filtering and suppressing: the same masks, fewer measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.masks.in_turn import overlapping, suppress_in_turn
from maskmill.pipeline.masks.measure import Bools, MaskBatch


def batch_of(box_xyxy_N4: masks.Ints, iou_N: masks.Floats32, stability_N: masks.Floats32) -> MaskBatch:
    """Masks named by their place: the object column holds it."""
    num = len(box_xyxy_N4)
    return MaskBatch(
        predicted_iou_N=iou_N,
        stability_N=stability_N,
        area_px_N=np.ones(num, np.int64),
        box_xyxy_N4=box_xyxy_N4,
        point_xy_N2=np.zeros((num, 2)),
        output_token_N=np.zeros(num, np.int64),
        crop_N=np.zeros(num, np.int64),
        mask_N=masks.object_column(list(range(num))),
    )


def stable(batch: MaskBatch) -> Bools:
    good: Bools = batch.stability_N >= np.float32(0.5)
    return good


def both_ways(batch: MaskBatch, max_iou: float) -> tuple[list[int], list[int], int]:
    """Places kept by measuring all, kept in turn, and how many were measured in turn."""
    passing = batch[stable(batch)]
    rows = masks.suppress(passing.box_xyxy_N4, passing.predicted_iou_N, max_iou=max_iou)
    counted: list[int] = []

    def measured(some: MaskBatch) -> MaskBatch:
        counted.extend(some.mask_N)
        return some

    found = suppress_in_turn(batch, max_iou=max_iou, measured=measured, passes=stable)
    assert len(counted) == len(set(counted))
    return list(passing[rows].mask_N), list(found.mask_N), len(counted)


@st.composite
def crowds(draw: st.DrawFn) -> MaskBatch:
    """Boxes that overlap a lot, scores with ties, boxes without area among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num, reach = draw(st.integers(0, 60)), draw(st.integers(1, 40))
    corners = rng.integers(0, reach, (num, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.int64)
    iou = (rng.integers(0, draw(st.integers(1, 30)), num) / 30).astype(np.float32)
    return batch_of(boxes, iou, rng.random(num).astype(np.float32))


@given(crowds(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]))
def test_the_kept_are_those_of_measuring_all(batch: MaskBatch, max_iou: float) -> None:
    wanted, found, num_measured = both_ways(batch, max_iou)
    assert found == wanted
    assert len(found) <= num_measured <= len(batch)


def test_a_chain_in_which_each_overlaps_the_next() -> None:
    """The worst case for rounds: every decision waits for the one before; an unstable link frees the next."""
    num = 40
    boxes = np.array([[4 * i, 0, 4 * i + 20, 10] for i in range(num)])
    stability = np.ones(num, np.float32)
    stability[::7] = 0.0
    batch = batch_of(boxes, np.linspace(1, 0.5, num, dtype=np.float32), stability)
    wanted, found, num_measured = both_ways(batch, 0.5)
    assert found == wanted and num_measured < num


def test_alike_masks_cost_one_measure_until_one_passes() -> None:
    num = 30
    boxes = np.tile(np.array([[5, 5, 50, 60]]), (num, 1))
    stability = np.full(num, 1.0, np.float32)
    stability[:3] = 0.0
    wanted, found, num_measured = both_ways(
        batch_of(boxes, np.linspace(1, 0.5, num, dtype=np.float32), stability), 0.7
    )
    assert (found, num_measured) == (wanted, 4) == ([3], 4)


@pytest.mark.parametrize("max_iou", [0.25, 0.5, 0.7])
def test_overlaps_are_torchvisions_to_the_bit(max_iou: float) -> None:
    corners = np.random.default_rng(0).integers(0, 30, (200, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    theirs = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(boxes).float()).double() > max_iou
    assert np.array_equal(overlapping(boxes, max_iou), theirs.numpy())
