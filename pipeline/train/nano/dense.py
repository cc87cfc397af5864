"""A second teacher for the encoder: every pixel's embedding should tell its own masks from the rest.

A prompt teaches the encoder one object through the whole decoder, and a picture affords few of them. Here
anchors are drawn from all masks of a picture, the embedding under each is turned into a query for the
smallest, the middle and the largest mask there, and the query is compared with the decoder's upscaled
embedding at drawn cells: hundreds of grouping decisions for the price of a few prompts. The heads are thrown
away after training; what they teach stays in the encoder and the upscaling.

Shapes: B images, A anchors, L = 3 levels, K drawn cells, C channels, S/2 the low-resolution side.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.train.losses import dice_loss

LEVELS = 3


class DenseHeads(nn.Module):
    """An anchor's embedding to a query, a bias and a reach for each level."""

    def __init__(self, dim: int, fine_dim: int) -> None:
        super().__init__()
        self.fine_dim = fine_dim
        self.widen = nn.Linear(dim, dim)
        self.answer = nn.Linear(dim, LEVELS * (fine_dim + 2))

    def forward(self, anchor_AC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [A, L, fine_dim], bias [A, L], and fall of the logit with squared distance [A, L]."""
        answer = self.answer(F.gelu(self.widen(anchor_AC))).unflatten(-1, (LEVELS, self.fine_dim + 2))
        return answer[..., :-2], answer[..., -2], 8 * F.softplus(answer[..., -1])


def dense_heads(sam: Sam) -> DenseHeads:
    """Fresh heads that fit a student's widths."""
    return DenseHeads(sam.mask_decoder.transformer_dim, sam.mask_decoder.output_upscaling[3].out_channels)


def dense_loss(
    sam: Sam,
    heads: DenseHeads,
    embedding_BCHW: Tensor,
    targets: list[Tensor],
    generator: torch.Generator,
    *,
    anchors: int = 32,
    cells: int = 2048,
) -> Tensor:
    """Cross-entropy and dice of anchors' masks on drawn cells.

    Args:
        sam: whose `output_upscaling` makes the fine embedding.
        heads: `dense_heads(sam)`.
        embedding_BCHW: float[B, C, S/8, S/8].
        targets: B of float32[N, S/2, S/2], the share of each cell that each mask covers.
        generator: for anchors and cells.
        anchors: drawn a picture, every mask with the same chance.
        cells: drawn a picture: half of them like anchors, half anywhere.

    Returns:
        A scalar.
    """
    fine_BCK = sam.mask_decoder.output_upscaling(embedding_BCHW).flatten(2)
    smooth_BCss = F.interpolate(embedding_BCHW, scale_factor=4.0, mode="bilinear").flatten(2)
    losses = []
    for fine_CK, coarse_CK, target_Nss in zip(fine_BCK, smooth_BCss, targets, strict=True):
        side, truth_NK = target_Nss.shape[-1], target_Nss.flatten(1)
        even_K = (truth_NK / truth_NK.sum(1, keepdim=True).clamp(min=1)).sum(0)
        anchor_A = torch.multinomial(even_K, anchors, replacement=True, generator=generator)
        near = torch.multinomial(even_K, cells // 2, replacement=True, generator=generator)
        far = torch.randint(len(even_K), (cells - cells // 2,), generator=generator)
        cell_K = torch.cat([near, far])
        query_ALC, bias_AL, fall_AL = (x.float() for x in heads(coarse_CK[:, anchor_A].T))
        logits_ALK = query_ALC @ fine_CK[:, cell_K].float() + bias_AL[..., None]
        logits_ALK = logits_ALK - fall_AL[..., None] * _squared_distance(anchor_A, cell_K, side)[:, None]
        wanted_ALK = (truth_NK > 0.5).float()[_masks_under(truth_NK, anchor_A)][..., cell_K]
        losses.append(_compare(logits_ALK, wanted_ALK))
    return torch.stack(losses).mean()


def _masks_under(truth_NK: Tensor, anchor_A: Tensor) -> Tensor:
    """The smallest, the middle and the largest mask at each anchor: int64[A, L]."""
    area_N = truth_NK.sum(1)
    under_AN = truth_NK[:, anchor_A].T > 0.5
    under_AN = under_AN | (truth_NK[:, anchor_A].amax(0)[:, None] <= truth_NK[:, anchor_A].T)
    order_AN = torch.where(under_AN, area_N, torch.inf).argsort(dim=1)
    count_A = under_AN.sum(1)
    place_AL = torch.stack([torch.zeros_like(count_A), count_A // 2, count_A - 1], dim=1)
    return order_AN.gather(1, place_AL)


def _squared_distance(anchor_A: Tensor, cell_K: Tensor, side: int) -> Tensor:
    """Of cells to anchors, in squared sides of the picture: float32[A, K]."""
    dy = (anchor_A // side)[:, None] - (cell_K // side)
    dx = (anchor_A % side)[:, None] - (cell_K % side)
    return (dy.square() + dx.square()).float() / side**2


def _compare(logits_ALK: Tensor, wanted_ALK: Tensor) -> Tensor:
    dice = dice_loss(torch.sigmoid(logits_ALK), wanted_ALK)
    return dice.mean() + F.binary_cross_entropy_with_logits(logits_ALK, wanted_ALK)
