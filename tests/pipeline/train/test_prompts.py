"""Simulated prompts: deep centres, points in their masks, boxes near them, corrections in the error, equal
embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.prompts import (
    BOX_END,
    BOX_START,
    FOREGROUND,
    PAD,
    centre_point,
    embed_tokens,
    noised_box,
)

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


def disc(size: int, x: int, y: int, radius: int) -> np.ndarray:
    rows, cols = np.mgrid[:size, :size]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def test_the_centre_of_a_disc_is_its_middle() -> None:
    assert centre_point(disc(40, 13, 22, 7)) == (13, 22)


def test_the_centre_lies_in_the_mask_even_of_a_ring() -> None:
    ring = disc(60, 30, 30, 25) & ~disc(60, 30, 30, 12)
    x, y = centre_point(ring)
    assert ring[y, x]


def test_the_image_border_counts_as_outside() -> None:
    half = np.zeros((30, 30), bool)
    half[:, :11] = True
    assert centre_point(half)[0] == 5


def test_an_empty_mask_has_no_centre() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        centre_point(np.zeros((8, 8), bool))


def test_boxes_are_noised_by_a_tenth_of_their_side() -> None:
    mask = np.zeros((200, 200), bool)
    mask[60:140, 80:120] = True
    boxes = np.array([noised_box(np.random.default_rng(seed), mask) for seed in range(300)])
    noise = boxes - [80, 60, 119, 139]
    assert np.abs(noise).max() <= 20
    assert np.allclose(noise.std(axis=0), [4, 8, 4, 8], rtol=0.2)


def test_embeddings_are_the_prompt_encoders_own() -> None:
    encoder = build_student(TINY).prompt_encoder
    coords = torch.tensor([[[10.0, 20.0], [0.0, 0.0]], [[31.0, 5.0], [0.0, 0.0]]])
    labels = torch.tensor([[FOREGROUND, PAD], [0, PAD]])
    ours = embed_tokens(encoder, coords[None], labels[None], 64)[0]
    theirs, _ = encoder((coords[:, :1], labels[:, :1]), None, None)
    assert torch.allclose(ours, theirs, atol=1e-6)
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0]])
    ours = embed_tokens(encoder, boxes.view(1, 1, 2, 2), torch.tensor([[[BOX_START, BOX_END]]]), 64)[0]
    theirs, _ = encoder(None, boxes, None)
    assert torch.allclose(ours, theirs, atol=1e-6)
