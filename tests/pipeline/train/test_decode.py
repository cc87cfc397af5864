"""The batched training decoder equals segment_anything's own, with and without mask prompts."""

from __future__ import annotations

import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.decode import decode

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


@pytest.mark.parametrize("with_masks", [False, True])
def test_equals_the_reference(with_masks: bool) -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    embedding = torch.randn(2, 32, 8, 8)
    points, labels = torch.rand(2, 3, 2, 2) * 64, torch.randint(0, 2, (2, 3, 2))
    masks = torch.randn(2, 3, 1, 32, 32) if with_masks else None
    sparse, dense, wanted = [], [], []
    with torch.no_grad():
        for b in range(2):
            mask = None if masks is None else masks[b]
            sparse_PTC, dense_PCHW = sam.prompt_encoder((points[b], labels[b]), None, mask)
            sparse.append(sparse_PTC)
            dense.append(dense_PCHW)
            wanted.append(
                sam.mask_decoder.predict_masks(
                    embedding[b : b + 1], sam.prompt_encoder.get_dense_pe(), sparse_PTC, dense_PCHW
                )
            )
        got = decode(sam, embedding, torch.stack(sparse), torch.stack(dense) if with_masks else None)
    for b in range(2):
        torch.testing.assert_close(got.logits[b], wanted[b][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got.iou[b], wanted[b][1], atol=1e-5, rtol=1e-4)
