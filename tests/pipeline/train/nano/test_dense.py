"""The encoder's second teacher: which masks an anchor asks for, what the loss says, and what it moves."""

from __future__ import annotations

import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.dense import _masks_under, _squared_distance, dense_heads, dense_loss

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


def _nested() -> torch.Tensor:
    """Three masks one in another, largest first, and one apart: float32[4, 32, 32]."""
    masks = torch.zeros(4, 32, 32)
    masks[0, 2:22, 2:22], masks[1, 4:16, 4:16], masks[2, 6:10, 6:10], masks[3, 26:30, 26:30] = 1, 1, 1, 1
    return masks


def test_an_anchor_asks_for_its_smallest_middle_and_largest_mask() -> None:
    truth_BNK = _nested().flatten(1)[None]
    anchors = torch.tensor([[7 * 32 + 7, 13 * 32 + 13, 20 * 32 + 20, 27 * 32 + 27]])
    assert _masks_under(truth_BNK, anchors)[0].tolist() == [[2, 1, 0], [1, 0, 0], [0, 0, 0], [3, 3, 3]]


def test_an_anchor_on_a_covered_edge_asks_for_the_mask_that_covers_most_of_it() -> None:
    truth_BNK = torch.tensor([[[0.25, 0.0, 1.0], [0.5, 1.0, 0.0]]])
    assert _masks_under(truth_BNK, torch.tensor([[0]])).tolist() == [[[1, 1, 1]]]


def test_distances_are_in_squared_sides() -> None:
    distance = _squared_distance(torch.tensor([[0]]), torch.tensor([[0, 31, 31 * 32]]), 32)
    assert torch.allclose(distance, torch.tensor([[[0.0, (31 / 32) ** 2, (31 / 32) ** 2]]]))


def test_descending_the_dense_loss_tells_the_masks_apart() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY).train()
    heads = dense_heads(sam)
    image, targets = torch.zeros(1, 3, 64, 64), _nested()
    for mask, colour in zip(targets, (1.0, -1.0, 2.0, 0.5), strict=True):
        image[0, 0].masked_fill_(mask.repeat_interleave(2, 0).repeat_interleave(2, 1) > 0, colour)
    optimiser = torch.optim.AdamW([*sam.parameters(), *heads.parameters()], lr=3e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(30):
        loss = dense_loss(sam, heads, sam.image_encoder(image), targets.flatten(1)[None], generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0], losses
    moved = {name.split(".")[0] for name, p in sam.named_parameters() if p.grad is not None}
    assert moved == {"image_encoder", "mask_decoder"}
    assert all(p.grad is not None for p in heads.parameters())


def test_pictures_of_a_batch_and_masks_that_are_none_do_not_mix() -> None:
    truth = torch.stack([_nested().flatten(1), _nested().flatten(1).flip(1)])
    truth = torch.cat([truth, torch.zeros(2, 2, truth.shape[-1])], dim=1)
    anchors = torch.tensor([[7 * 32 + 7], [27 * 32 + 27]])
    got = _masks_under(truth, anchors)
    for b in range(2):
        assert torch.equal(got[b], _masks_under(truth[b : b + 1, :4], anchors[b : b + 1])[0])
