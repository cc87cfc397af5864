"""A picture with its true masks, and answers at the picture's size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.evaluate import truth
from maskmill.pipeline.evaluate.truth import Truth, batches, boxes_of, full_size, iou_rows
from maskmill.pipeline.segmenters.base import ImageEmbedding


def test_iou_by_hand_and_of_nothing() -> None:
    one = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]], dtype=torch.bool)
    two = torch.tensor([[[0, 1, 1, 0]], [[0, 0, 0, 0]]], dtype=torch.bool)
    assert iou_rows(one, two).tolist() == [1 / 3, 0.0]


def test_logits_grow_as_the_reference_grows_them(tiny_sam: Sam) -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32))
    embedding = ImageEmbedding(torch.zeros(1, 1, 1), 90, 150, 77, 128)
    wanted = tiny_sam.postprocess_masks(logits[:, None], (77, 128), (90, 150))[:, 0]
    assert torch.equal(full_size(logits, embedding), wanted)


def test_batches_cover_all_and_keep_to_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "LIMIT_BYTES", 3 * 4 * 10 * 10 * 5)
    assert [(part.start, part.stop) for part in batches(12, 10, 10)] == [(0, 5), (5, 10), (10, 12)]
    assert [(part.start, part.stop) for part in batches(2, 1000, 1000)] == [(0, 1), (1, 2)]
    assert [(part.start, part.stop) for part in batches(3, 1, 1, most=2)] == [(0, 2), (2, 3)]


def test_boxes_have_inclusive_corners_and_an_empty_mask_has_none() -> None:
    masks = np.zeros((2, 6, 8), np.bool_)
    masks[0, 2:5, 3:8] = True
    masks[1, 5, 0] = True
    assert boxes_of(masks).tolist() == [[3, 2, 7, 4], [0, 5, 0, 5]]
    with pytest.raises(ValueError, match="mask 1 is empty and has no box"):
        boxes_of(masks & (np.arange(2) == 0)[:, None, None])


def test_where_kinds_are_unknown_all_are_one() -> None:
    masks = np.ones((2, 4, 4), np.bool_)
    image = np.zeros((4, 4, 3), np.uint8)
    assert Truth("a", image, masks).categories() == (1, 1)
    assert Truth("a", image, masks, category_N=(3, 7)).categories() == (3, 7)
