"""SAM's losses against all masks of an image at once, and which output answers for which mask.

Focal and dice loss are linear in the target once the logits' own terms are made, so the cost of every
output against every mask of the image is a matrix product. That makes room for a richer recipe than SAM's
best-of-three at the same price: where the data knows several masks under a point (whole, part, subpart),
the three outputs are matched to them one to one, at the least total cost. With one mask under the point
that *is* best-of-three.

Shapes: P prompts, M outputs, N masks of the image, K pixels of the low-resolution frame.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FOCAL_WEIGHT, DICE_WEIGHT = 20.0, 1.0
MULTIMASK = slice(1, 4)  # outputs that answer a single, ambiguous prompt; output 0 answers the rest
_ORDERS = tuple(itertools.permutations(range(3)))


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - dice over the last axis, smoothed by one cell; both float[..., K], 0 to 1."""
    return dice_of_sums((probability * target).sum(-1), probability.sum(-1) + target.sum(-1))


def dice_of_sums(overlap: Tensor, sizes: Tensor) -> Tensor:
    """1 - dice, smoothed by one cell; the sums may be of some cells only.

    Args:
        overlap: float, sum of probability times target.
        sizes: float of the same shape, sum of both.

    Source: Milletari et al., V-Net (2016), with 1 added above and below.
    """
    return 1 - (2 * overlap + 1) / (sizes + 1)


@dataclass(frozen=True)
class PairCosts:
    """Every output against every mask.

    Attributes:
        cost_PMN: float32[..., P, M, N], 20 focal + dice, differentiable.
        iou_PMN: float32[..., P, M, N], IoU of the mask thresholded at logit 0; no gradient.
    """

    cost_PMN: Tensor
    iou_PMN: Tensor


def pair_costs(logits_PMK: Tensor, targets_NK: Tensor) -> PairCosts:
    """Cost and IoU of every output against every mask of its picture.

    Args:
        logits_PMK: float32[..., P, M, K].
        targets_NK: float32[..., N, K], the share of each cell that the mask covers, 0..1.

    Returns:
        The pairs.
    """
    shape = (*logits_PMK.shape[:-1], targets_NK.shape[-2])
    pixels = logits_PMK.shape[-1]
    logits_OK, targets_KN = logits_PMK.flatten(-3, -2), targets_NK.transpose(-1, -2)
    probability = torch.sigmoid(logits_OK)
    log_on = F.logsigmoid(logits_OK)
    on = (1 - probability).square() * -log_on  # focal with gamma 2
    off = probability.square() * (logits_OK - log_on)
    focal = (off.sum(-1, keepdim=True) + (on - off) @ targets_KN) / pixels
    overlap = probability @ targets_KN
    dice = dice_of_sums(overlap, probability.sum(-1, keepdim=True) + targets_NK.sum(-1)[..., None, :])
    with torch.no_grad():
        hard, truth = (logits_OK > 0).float(), (targets_NK > 0.5).float()
        common = hard @ truth.transpose(-1, -2)
        iou = common / (hard.sum(-1, keepdim=True) + truth.sum(-1)[..., None, :] - common).clamp(min=1)
    cost = FOCAL_WEIGHT * focal + DICE_WEIGHT * dice
    return PairCosts(cost.view(shape), iou.view(shape))


def matched_cost(cost_PMN: Tensor, target_P: Tensor, under_PN: Tensor) -> Tensor:
    """Cost of a single prompt's three outputs, matched one to one with up to three masks under it.

    Args:
        cost_PMN: float32[P, 4, N].
        target_P: int64[P], the mask the prompt was drawn from; always among the matched.
        under_PN: bool[P, N], masks that a prompt may mean; at most two beyond the target are matched,
            smallest index first.

    Returns:
        float32[P], the mean over the matched pairs.
    """
    rows = torch.arange(len(target_P), device=target_P.device)
    rank = under_PN.float()
    rank[rows, target_P] = 2.0
    count = min(3, rank.shape[1])
    top = torch.topk(rank, count, dim=1)
    cost_P3C = (
        cost_PMN[:, MULTIMASK].gather(2, top.indices[:, None].expand(-1, 3, -1)) * (top.values > 0)[:, None]
    )
    totals = [torch.stack([cost_P3C[:, order[c], c] for c in range(count)]).sum(0) for order in _ORDERS]
    return torch.stack(totals).amin(0) / (top.values > 0).sum(1)


def iou_target(
    iou_PMN: Tensor, target_P: Tensor, under_PN: Tensor, is_box_P: Tensor, is_void_P: Tensor
) -> Tensor:
    """What predicted IoU should say: the best IoU with any mask the prompt may mean.

    A point means any mask under it, so an output that is a good mask of *something* there is good; a box
    means its own mask.

    Returns:
        float32[P, M].
    """
    may_mean = under_PN & ~is_box_P[:, None]
    may_mean[torch.arange(len(target_P), device=target_P.device), target_P] = ~is_void_P
    return (iou_PMN * may_mean[:, None]).amax(-1)
