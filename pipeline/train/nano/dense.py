"""A second teacher for the encoder: every pixel's embedding should tell its own masks from the rest.

A prompt teaches the encoder one object through the whole decoder, and a picture affords few of them. Here
anchors are drawn from all masks of a picture, the embedding under each is turned into a query for the
smallest, the middle and the largest mask there, and the query is compared with the decoder's upscaled
embedding at drawn cells: hundreds of grouping decisions for the price of a few prompts. The heads are thrown
away after training; what they teach stays in the encoder and the upscaling.

Shapes: B images, N masks, A anchors, L = 3 levels, K cells, C channels, S/2 the low-resolution side.
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
    truth_BNK: Tensor,
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
        truth_BNK: float32[B, N, S/2 x S/2], the share of each cell that each mask covers; all 0 for a mask
            that is none.
        generator: for anchors and cells, of the tensors' device.
        anchors: drawn a picture, every mask with the same chance.
        cells: drawn a picture: half of them like anchors, half anywhere.

    Returns:
        A scalar.
    """
    fine_BCK = sam.mask_decoder.output_upscaling(embedding_BCHW).flatten(2)
    smooth_BCK = F.interpolate(embedding_BCHW, scale_factor=4.0, mode="bilinear").flatten(2)
    side = 4 * embedding_BCHW.shape[-1]
    even_BK = (truth_BNK / truth_BNK.sum(2, keepdim=True).clamp(min=1)).sum(1)
    anchor_BA = torch.multinomial(even_BK, anchors, replacement=True, generator=generator)
    near_BK = torch.multinomial(even_BK, cells // 2, replacement=True, generator=generator)
    far = (len(even_BK), cells - cells // 2)
    far_BK = torch.randint(side**2, far, generator=generator, device=even_BK.device)
    cell_BK = torch.cat([near_BK, far_BK], dim=1)

    query_BALC, bias_BAL, fall_BAL = (x.float() for x in heads(_at(smooth_BCK, anchor_BA).transpose(1, 2)))
    logits_BALK = torch.einsum("balc,bck->balk", query_BALC, _at(fine_BCK, cell_BK).float())
    distance_BA1K = _squared_distance(anchor_BA, cell_BK, side)[:, :, None]
    logits_BALK = logits_BALK + bias_BAL[..., None] - fall_BAL[..., None] * distance_BA1K

    solid_BNK = (_at(truth_BNK, cell_BK) > 0.5).float()
    under_BAL = _masks_under(truth_BNK, anchor_BA)
    wanted_BAlK = solid_BNK.gather(1, under_BAL.flatten(1)[..., None].expand(-1, -1, solid_BNK.shape[-1]))
    return _compare(logits_BALK, wanted_BAlK.view_as(logits_BALK))


def _at(values_BCK: Tensor, place_BK: Tensor) -> Tensor:
    """Values at drawn places."""
    return values_BCK.gather(2, place_BK[:, None].expand(-1, values_BCK.shape[1], -1))


def _masks_under(truth_BNK: Tensor, anchor_BA: Tensor) -> Tensor:
    """The smallest, the middle and the largest mask at each anchor: int64[B, A, L]."""
    area_BN = truth_BNK.sum(2)
    share_BAN = _at(truth_BNK, anchor_BA).transpose(1, 2)
    under_BAN = (share_BAN > 0.5) | (share_BAN >= share_BAN.amax(2, keepdim=True))
    order_BAN = torch.where(under_BAN, area_BN[:, None], torch.inf).argsort(dim=2)
    count_BA = under_BAN.sum(2)
    place_BAL = torch.stack([torch.zeros_like(count_BA), count_BA // 2, count_BA - 1], dim=2)
    return order_BAN.gather(2, place_BAL)


def _squared_distance(anchor_BA: Tensor, cell_BK: Tensor, side: int) -> Tensor:
    """Of cells to anchors, in squared sides of the picture: float32[B, A, K]."""
    dy = (anchor_BA // side)[:, :, None] - (cell_BK // side)[:, None]
    dx = (anchor_BA % side)[:, :, None] - (cell_BK % side)[:, None]
    return (dy.square() + dx.square()).float() / side**2


def _compare(logits_BALK: Tensor, wanted_BALK: Tensor) -> Tensor:
    dice = dice_loss(torch.sigmoid(logits_BALK), wanted_BALK)
    return dice.mean() + F.binary_cross_entropy_with_logits(logits_BALK, wanted_BALK)
