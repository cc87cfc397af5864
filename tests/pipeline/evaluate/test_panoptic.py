"""Panoptic quality against the formula, restated plainly, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from maskmill.pipeline.evaluate.panoptic import PanopticCounts, panoptic_counts, panoptic_quality
from maskmill.pipeline.masks.layers import painted
from maskmill.pipeline.rle import encode_mask


def plainly(ours_HW: NDArray[np.uint32], truth_HW: NDArray[np.uint32]) -> float:
    """PQ as the paper writes it: for every pair of segments."""
    iou, matched_ours, matched_truth = 0.0, set(), set()
    ours, truth = set(np.unique(ours_HW).tolist()) - {0}, set(np.unique(truth_HW).tolist()) - {0}
    for one in ours:
        for other in truth:
            first, second = ours_HW == one, truth_HW == other
            found = (first & second).sum() / (first | second).sum()
            if found > 0.5:
                iou += float(found)
                matched_ours.add(one)
                matched_truth.add(other)
    false, missed = len(ours - matched_ours), len(truth - matched_truth)
    return iou / (len(matched_ours) + false / 2 + missed / 2)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_the_papers(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth = np.kron(draw.integers(0, 5, (4, 4)), np.ones((8, 8))).astype(np.uint32)
    ours = np.where(draw.random(truth.shape) < 0.2, draw.integers(0, 7, truth.shape), truth).astype(np.uint32)
    counts = panoptic_counts(ours, truth)
    assert counts.pq == pytest.approx(plainly(ours, truth))
    assert counts.pq == pytest.approx(counts.sq * counts.rq)


def test_the_same_is_one_and_nothing_is_no_number() -> None:
    square = np.zeros((8, 8), np.uint32)
    square[2:5, 2:5] = 9
    assert panoptic_counts(square, square) == PanopticCounts(1.0, 1, 0, 0)
    assert panoptic_counts(np.zeros_like(square), square) == PanopticCounts(0.0, 0, 0, 1)
    assert np.isnan(panoptic_counts(np.zeros_like(square), np.zeros_like(square)).pq)
    with pytest.raises(ValueError, match="two sizes"):
        panoptic_counts(square, square[1:])


def test_counts_add_up_over_images_and_images_without_masks_count_nothing() -> None:
    one = np.zeros((8, 8), bool)
    one[:4] = True
    other = ~one
    pairs = [([encode_mask(one)], [encode_mask(one)]), ([], [encode_mask(other)]), ([], [])]
    assert panoptic_quality(pairs) == PanopticCounts(1.0, 1, 0, 1)
    assert panoptic_quality(pairs).pq == pytest.approx(1 / 1.5)


def test_the_smaller_lies_on_the_larger_whatever_their_order() -> None:
    large, small = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
    large[:, :], small[1:3, 1:3] = True, True
    for masks in ((large, small), (small, large)):
        values = [2 if mask is small else 1 for mask in masks]
        map_HW = painted([encode_mask(mask) for mask in masks], values, height=6, width=6)
        assert (map_HW == np.where(small, 2, 1)).all()
    with pytest.raises(ValueError, match="6x6 px in an image of 7x6"):
        painted([encode_mask(large)], [1], height=6, width=7)
