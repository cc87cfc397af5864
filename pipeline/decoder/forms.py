"""What the mask decoders of SAM's family have beside SAM's own, one description a family.

All share the two-way transformer, so lowrank.py serves them all; what differs is which tokens go in, and what
the heads do with what comes out. Parts have the names that their authors gave them (`obj_score_token`,
`hf_token`, `hf_mlp`, `compress_vit_feat`, `embedding_encoder`, `embedding_maskfeature`).

    family                 tokens before the prompt  mask head                 predicted IoU  a single mask
    SAM, nano, students    IoU, masks                its own                   as it is       token 0
    SAM-HQ                 IoU, masks, HQ            adds the HQ token's mask  as it is       token 0
    SAM 2, EdgeTAM, SAM 3  object, IoU, masks        adds two finer maps       a sigmoid      a stable token 0

The object token takes part in attention; its score says whether a tracked object is in sight, which no image
model uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StabilityChoice:
    """Where one mask a prompt is asked for and token 0's is unstable, the best of the others stands in.

    Attributes:
        offset: distance in logits of the two cut-offs whose areas are compared, at the logits' own size.
        threshold: below this share token 0's mask is unstable.

    Source: sam2/modeling/sam/mask_decoder.py, `_dynamic_multimask_via_stability`.
    """

    offset: float
    threshold: float

    def stable(self, logits_Phw: Tensor) -> Tensor:
        """bool[P]: which masks hardly change with the cut-off; one without a pixel is stable."""
        flat_PS = logits_Phw.flatten(1)
        inner_P = (flat_PS > self.offset).sum(dim=1).float()
        outer_P = (flat_PS > -self.offset).sum(dim=1).float()
        share_P = torch.where(outer_P > 0, inner_P / outer_P, 1.0)
        return share_P >= self.threshold


@dataclass(frozen=True)
class DecoderForm:
    """How a family's mask decoder differs from SAM's; the table above.

    Attributes:
        object_token: `obj_score_token` goes before the IoU token.
        hq_token: `hf_token` goes behind the mask tokens, and its mask is added to each output's.
        finer_maps: the mask head adds one map of the image to each of its two convolutions' outputs.
        sigmoid_iou: the IoU head's output goes through a sigmoid.
        pads_boxes: a padding point follows a box, and stands where a prompt is a mask alone.
        choice: how one mask a prompt is chosen; None takes token 0's.
    """

    object_token: bool = False
    hq_token: bool = False
    finer_maps: bool = False
    sigmoid_iou: bool = False
    pads_boxes: bool = False
    choice: StabilityChoice | None = None

    @property
    def iou_place(self) -> int:
        """Of the IoU token among a prompt's tokens; the mask tokens follow it."""
        return int(self.object_token)

    def output_tokens(self, mask_decoder: Any) -> Tensor:
        """float[T, C]: what goes before the prompt's own tokens."""
        parts: Sequence[Any] = (mask_decoder.iou_token, mask_decoder.mask_tokens)
        if self.object_token:
            parts = (mask_decoder.obj_score_token, *parts)
        if self.hq_token:
            parts = (*parts, mask_decoder.hf_token)
        return torch.cat([part.weight for part in parts])

    def predicted_iou(self, mask_decoder: Any, tokens_PTC: Tensor) -> Tensor:
        """float[P, M of all mask tokens], of the transformer's tokens."""
        iou_PM: Tensor = mask_decoder.iou_prediction_head(tokens_PTC[:, self.iou_place])
        return iou_PM.sigmoid() if self.sigmoid_iou else iou_PM


SAM = DecoderForm()
SAM_HQ = DecoderForm(hq_token=True)
SAM2 = DecoderForm(object_token=True, finer_maps=True, sigmoid_iou=True, pads_boxes=True)
"""Also EdgeTAM's and SAM 3's tracker's; their configurations may ask for a `choice` besides."""
