"""How much two sets of masks agree, against IoU written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from maskmill.pipeline.evaluate.agreement import best_partners, iou_matrix, share_above
from maskmill.pipeline.rle import encode_mask
from tests.pipeline.evaluate.blocks import blocks, plain_iou


def test_best_partners_both_ways() -> None:
    masks = blocks(7, 4)
    first, second = [encode_mask(m) for m in masks[:3]], [encode_mask(m) for m in masks[1:]]
    got = iou_matrix(first, second)
    for (i, a), (j, b) in itertools.product(enumerate(masks[:3]), enumerate(masks[1:])):
        assert got[i, j] == pytest.approx(plain_iou(a, b))
    ours, theirs = best_partners(first, second)
    assert ours[1] == theirs[0] == 1.0
    assert best_partners(first, [])[0].tolist() == [0, 0, 0]
    assert share_above(np.array([0.95, 0.92, 0.9, 0.8]), 0.9) == 0.5


def test_masks_of_two_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="masks of two sizes: compare masks of one picture"):
        iou_matrix([encode_mask(np.ones((4, 4), np.bool_))], [encode_mask(np.ones((4, 5), np.bool_))])
    assert iou_matrix([], [encode_mask(np.ones((4, 4), np.bool_))]).shape == (0, 1)
    assert share_above(np.array([0.95, 0.92, 0.8]), 0.9) == 2 / 3
    assert np.isnan(share_above(np.zeros(0), 0.5))
