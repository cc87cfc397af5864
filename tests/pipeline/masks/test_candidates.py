"""Stored candidates: the same masks come out of the bytes as out of the stage, for any higher thresholds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maskmill.pipeline.masks.candidates import Candidates, from_bytes, to_bytes
from maskmill.pipeline.masks.measure import MaskBatch, empty_batch, object_column
from maskmill.pipeline.rle import encode_mask


def some(num: int, height: int = 30, width: int = 40, seed: int = 0) -> Candidates:
    """Random rectangles with random scores."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((num, height, width), bool)
    boxes = np.zeros((num, 4), np.int64)
    for i in range(num):
        x, y = int(draw.integers(0, width - 4)), int(draw.integers(0, height - 4))
        w, h = int(draw.integers(1, width - x)), int(draw.integers(1, height - y))
        masks[i, y : y + h, x : x + w] = True
        boxes[i] = (x, y, x + w - 1, y + h - 1)
    batch = MaskBatch(
        predicted_iou_N=draw.random(num, np.float32),
        stability_N=draw.random(num, np.float32),
        area_px_N=masks.sum(axis=(1, 2)),
        box_xyxy_N4=boxes,
        point_xy_N2=draw.random((num, 2)) * (width, height),
        output_token_N=draw.integers(0, 3, num),
        crop_N=np.zeros(num, np.int64),
        mask_N=object_column([encode_mask(mask) for mask in masks]),
    )
    return Candidates(height, width, batch)


def test_every_column_comes_back() -> None:
    ours = some(17)
    back = from_bytes(to_bytes(ours))
    assert (back.height, back.width) == (30, 40)
    for field in dataclasses.fields(MaskBatch):
        theirs, mine = getattr(back.batch, field.name), getattr(ours.batch, field.name)
        assert (theirs == mine).all(), field.name
        assert theirs.dtype == mine.dtype, field.name
    assert to_bytes(back) == to_bytes(ours)


def test_none_is_kept_too() -> None:
    assert len(from_bytes(to_bytes(Candidates(5, 6, empty_batch()))).batch) == 0


@pytest.mark.parametrize("spoil", [lambda d: d[:-5], lambda d: b"", lambda d: b"x" + d, lambda d: d[:40]])
def test_damage_is_told(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(ValueError, match="candidates"):
        from_bytes(spoil(to_bytes(some(9))))


def test_selection_from_bytes_equals_selection_at_once() -> None:
    from maskmill.pipeline.masks.select import select_masks
    from maskmill.pipeline.settings import MaskSettings

    kept = some(60, seed=3)
    for threshold in (0.0, 0.4, 0.9):
        settings = MaskSettings(predicted_iou=threshold, stability=0.1, box_nms=0.5, min_area_px=4)
        direct = select_masks(kept.batch, settings, height=30, width=40)
        assert select_masks(from_bytes(to_bytes(kept)).batch, settings, height=30, width=40) == direct
        assert all(annotation.predicted_iou > threshold for annotation in direct.annotations)
