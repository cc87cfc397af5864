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
    correction_points,
    embed_tokens,
    first_prompts,
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


def test_points_lie_in_their_masks_and_every_mask_has_its_turn() -> None:
    masks = np.stack([disc(64, 16, 16, 9), disc(64, 44, 40, 6), disc(64, 20, 50, 4)])
    prompts = first_prompts(np.random.default_rng(0), masks, 24, box_share=0.25)
    assert np.bincount(prompts.target_P).tolist() == [8, 8, 8]
    for coords, labels, target, is_box in zip(
        prompts.coords_PT2, prompts.labels_PT, prompts.target_P, prompts.is_box_P, strict=True
    ):
        if is_box:
            assert labels.tolist() == [BOX_START, BOX_END]
            assert (coords[1] >= coords[0]).all()
        else:
            assert labels.tolist() == [FOREGROUND, PAD]
            x, y = coords[0].astype(int)
            assert masks[target, y, x]
    assert 0 < prompts.is_box_P.sum() < 24


def test_void_points_lie_outside_all_masks_where_there_is_room() -> None:
    masks = np.stack([disc(64, 16, 16, 9), disc(64, 44, 40, 6)])
    prompts = first_prompts(np.random.default_rng(0), masks, 20, void_share=0.2)
    assert prompts.is_void_P.tolist() == [False] * 16 + [True] * 4
    assert not prompts.is_box_P[16:].any()
    for x, y in prompts.coords_PT2[16:, 0].astype(int):
        assert not masks[:, y, x].any()
    full = first_prompts(np.random.default_rng(0), np.ones((1, 64, 64), bool), 20, void_share=0.2)
    assert not full.is_void_P.any()


def test_boxes_are_noised_by_a_tenth_of_their_side() -> None:
    mask = np.zeros((200, 200), bool)
    mask[60:140, 80:120] = True
    boxes = np.array([noised_box(np.random.default_rng(seed), mask) for seed in range(300)])
    noise = boxes - [80, 60, 119, 139]
    assert np.abs(noise).max() <= 20
    assert np.allclose(noise.std(axis=0), [4, 8, 4, 8], rtol=0.2)


def test_corrections_fall_in_the_error_and_say_what_is_missing() -> None:
    truth = torch.zeros(2, 16, 16)
    truth[:, 4:12, 4:12] = 1
    logits = torch.full((2, 16, 16), -5.0)
    logits[0, 4:12, 4:8] = 5  # misses the right half
    logits[1, 2:12, 4:12] = 5  # spills over the top
    for seed in range(20):
        cell, label = correction_points(torch.Generator().manual_seed(seed), logits, truth)
        assert label.tolist() == [1, 0]
        assert 8 <= cell[0, 0] < 12
        assert 4 <= cell[0, 1] < 12
        assert 2 <= cell[1, 1] < 4


def test_without_an_error_the_correction_is_a_point_of_the_target() -> None:
    truth = torch.zeros(1, 16, 16)
    truth[:, 4:12, 4:12] = 1
    cell, label = correction_points(torch.Generator().manual_seed(0), truth * 10 - 5, truth)
    assert label.tolist() == [1]
    assert truth[0, cell[0, 1], cell[0, 0]] == 1


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
