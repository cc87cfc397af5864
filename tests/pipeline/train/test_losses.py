"""Losses against all masks at once equal the plain formulas; matching and IoU targets do what they say."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskmill.pipeline.train.losses import iou_target, matched_cost, pair_costs


def plain_cost(logits_K: torch.Tensor, target_K: torch.Tensor) -> torch.Tensor:
    """20 focal + dice for one pair, written out."""
    p = torch.sigmoid(logits_K)
    cross_entropy = F.binary_cross_entropy_with_logits(logits_K, (target_K > 0.5).float(), reduction="none")
    p_right = torch.where(target_K > 0.5, p, 1 - p)
    focal = ((1 - p_right) ** 2 * cross_entropy).mean()
    dice = 1 - (2 * (p * target_K).sum() + 1) / (p.sum() + target_K.sum() + 1)
    return 20 * focal + dice


def test_costs_are_the_plain_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 50, generator=generator)
    targets = (torch.rand(3, 50, generator=generator) > 0.6).float()
    pairs = pair_costs(logits, targets)
    for p in range(2):
        for m in range(4):
            for n in range(3):
                torch.testing.assert_close(pairs.cost_PMN[p, m, n], plain_cost(logits[p, m], targets[n]))
                hard, truth = logits[p, m] > 0, targets[n] > 0.5
                iou = (hard & truth).sum() / (hard | truth).sum()
                torch.testing.assert_close(pairs.iou_PMN[p, m, n], iou)


def test_empty_and_full_masks_and_targets_stay_finite() -> None:
    logits = torch.stack([torch.full((4, 20), -60.0), torch.full((4, 20), 60.0)]).requires_grad_()
    pairs = pair_costs(logits, torch.stack([torch.zeros(20), torch.ones(20)]))
    pairs.cost_PMN.sum().backward()
    assert torch.isfinite(pairs.cost_PMN).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert pairs.iou_PMN[0].eq(0).all()
    assert pairs.iou_PMN[1, :, 1].eq(1).all()
    assert pairs.cost_PMN[1, 0, 1] < 1e-3


def test_with_one_mask_under_the_point_the_best_of_three_answers() -> None:
    cost = torch.tensor([[[0.0, 9.0], [5.0, 9.0], [2.0, 9.0], [3.0, 9.0]]])  # output 0 is not among the three
    got = matched_cost(cost, torch.tensor([0]), torch.tensor([[True, False]]))
    assert got.tolist() == [2.0]


def test_nested_masks_are_matched_one_to_one() -> None:
    cost = torch.full((1, 4, 3), 9.0)
    cost[0, 1:, :] = torch.tensor([[1.0, 2.0, 8.0], [1.0, 5.0, 8.0], [9.0, 9.0, 4.0]])
    got = matched_cost(cost, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(got, torch.tensor([(2.0 + 1.0 + 4.0) / 3]))


def test_the_target_is_matched_though_nothing_is_marked_under_the_prompt() -> None:
    cost = torch.rand(1, 4, 2) + 1
    cost[0, 2, 1] = 0.25
    assert matched_cost(cost, torch.tensor([1]), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [0.25]


def test_a_point_may_mean_any_mask_under_it_and_a_box_only_its_own() -> None:
    iou = torch.tensor([[[0.2, 0.9, 0.99]], [[0.2, 0.9, 0.99]]])
    under = torch.tensor([[True, True, False], [True, True, False]])
    got = iou_target(iou, torch.tensor([0, 0]), under, torch.tensor([False, True]), torch.tensor([False] * 2))
    torch.testing.assert_close(got, torch.tensor([[0.9], [0.2]]))


def test_nothing_is_right_on_the_background() -> None:
    iou, none = torch.rand(1, 3, 2), torch.zeros(1, 2, dtype=torch.bool)
    got = iou_target(iou, torch.tensor([0]), none, torch.tensor([False]), torch.tensor([True]))
    assert got.tolist() == [[0.0, 0.0, 0.0]]
