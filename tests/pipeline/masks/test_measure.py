from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.rle import decode


def _batch(num_masks: int, seed: int = 0) -> masks.MaskBatch:
    random = np.random.default_rng(seed)
    frame = Frame.of_image(32, height=20, width=30)
    logits = [random.normal(size=(8, 8)).astype(np.float32) for _ in range(num_masks)]
    return masks.MaskBatch(
        predicted_iou_N=random.random(num_masks, np.float32),
        stability_N=random.random(num_masks, np.float32),
        area_px_N=np.arange(num_masks),
        box_xyxy_N4=np.sort(random.integers(0, 20, (num_masks, 4)), axis=1)[:, [0, 1, 3, 2]],
        point_xy_N2=random.random((num_masks, 2)),
        output_token_N=np.arange(num_masks) % 3,
        crop_N=np.zeros(num_masks, np.int64),
        mask_N=masks.object_column([masks.PendingMask(logit, frame) for logit in logits]),
    )


def test_rows_are_taken_from_every_column() -> None:
    batch = _batch(6)
    by_mask = batch[batch.area_px_N >= 4]
    by_index = batch[np.array([5, 0])]
    assert len(by_mask) == 2
    assert by_index.area_px_N.tolist() == [5, 0]
    assert by_index.mask_N[0] is batch.mask_N[5]
    assert by_index.point_xy_N2.shape == (2, 2)


def test_concatenation_keeps_order_and_takes_nothing() -> None:
    batch = _batch(5)
    joined = masks.concatenate([batch[:0], batch[np.arange(2)], batch[np.arange(2, 5)]])
    assert joined.area_px_N.tolist() == [0, 1, 2, 3, 4]
    assert len(masks.concatenate([])) == 0
    assert masks.concatenate([masks.empty_batch(), batch]).box_xyxy_N4.dtype == np.int64


def test_thresholds_compare_as_the_reference() -> None:
    batch = _batch(4).replace(
        predicted_iou_N=np.array([0.88, 0.9, 0.9, 0.5], np.float32),
        stability_N=np.array([1.0, 0.95, 0.94, 0.0], np.float32),
    )
    assert masks.passes_thresholds(batch, predicted_iou=0.88, stability=0.95).tolist() == [
        False,  # not above
        True,  # equal is enough
        False,
        False,
    ]
    assert masks.passes_thresholds(batch, predicted_iou=0.0, stability=0.0).all()


@pytest.mark.parametrize("num_boxes", [0, 1, 40, 1500])
def test_suppression_is_torchvisions(num_boxes: int) -> None:
    random = np.random.default_rng(1)
    corners = np.sort(random.integers(0, 60, (num_boxes, 2, 2)), axis=1)
    box_xyxy_N4 = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    score_N = random.permutation(num_boxes).astype(np.float32)
    kept = masks.suppress(box_xyxy_N4, score_N, max_iou=0.7)
    wanted = nms(torch.from_numpy(box_xyxy_N4).float(), torch.from_numpy(score_N), 0.7)
    assert kept.tolist() == wanted.tolist()


def test_pending_masks_are_encoded_once_and_in_place() -> None:
    batch = _batch(4)
    assert masks.pending_bytes(batch) == 4 * 8 * 8 * 4
    half = masks.concatenate([masks.encode_pending(batch[np.array([0])]), batch[np.array([1, 2, 3])]])
    whole = masks.encode_pending(half)
    assert masks.pending_bytes(whole) == 0
    assert masks.run_lengths_of(whole) == masks.run_lengths_of(masks.encode_pending(batch))
    assert masks.pending_bytes(batch) == 4 * 8 * 8 * 4  # the batch itself is left alone
    rle = masks.run_lengths_of(whole)[2]
    upsampled = torch.nn.functional.interpolate(
        torch.from_numpy(batch.mask_N[2].logits_HW)[None, None], (32, 32), mode="bilinear"
    )[..., : batch.mask_N[2].frame.input_height, : batch.mask_N[2].frame.input_width]
    expected = torch.nn.functional.interpolate(upsampled, (20, 30), mode="bilinear")[0, 0].numpy() > 0
    assert np.array_equal(decode(rle), expected)
