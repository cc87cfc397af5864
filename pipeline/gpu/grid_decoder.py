"""A grid of points on one embedding, all at once: predicted IoU, then the logits of what passes.

The shared-image decoder's weights (decoder/decoder.py) and its low-rank algebra, with nothing between the
first operation and the last that looks at a result: no output is sought out, every one has its own place
among P x M, and those below the threshold are never made. Where the low-rank form would lose digits
nothing is done about it here; the largest cancellation goes along, and the engine decides.

What it does not do: prompts other than single points, SAM-HQ's further mask (`serves`).

Shapes: P points, M outputs of a point, T tokens, C channels, S image tokens, K rows of Z, E and G channels of
the mask head's pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskmill.pipeline.decoder import lowrank, lowrank_image
from maskmill.pipeline.decoder.decoder import DecoderWeights
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.decoder.lowrank_image import SharedImage
from maskmill.pipeline.decoder.lowrank_steps import InSteps, Scratch
from maskmill.pipeline.gpu.axis_tables import to_device
from maskmill.pipeline.gpu.ops import DeviceOps, HeadImage, HeadPrompts, HeadWeights

_PROMPT_NUMBERS = 2**28
"""Scores of the prompts that go together: 1,024 points at ViT's shapes, with the rest 3 GB in bfloat16."""


@dataclass(frozen=True, eq=False)
class GridMasks:
    """What a grid gives; every output has its place.

    Attributes:
        iou_PM: float32, predicted.
        keep_PM: bool, what passes the threshold.
        logits_PMhw: float32; only what is kept means anything.
        cancellation: float32, see `ImageKeys`.
    """

    iou_PM: Tensor
    keep_PM: Tensor
    logits_PMhw: Tensor
    cancellation: Tensor


def serves(weights: DecoderWeights) -> bool:
    """Whether this decoder's grids can go this way: low-rank pays, and no HQ mask is added."""
    transformer, form = weights.mask_decoder.transformer, weights.form
    tokens = len(form.output_tokens(weights.mask_decoder)) + 2  # the point and a padding point
    pays = lowrank.pays(tokens, transformer.num_heads, transformer.embedding_dim)
    return pays and not form.hq_token


class GridDecoder:
    """Grids of points under one model.

    Args:
        weights: of the shared-image decoder, on the device.
        ops: of the device.
        predicted_iou: outputs must have a predicted IoU above this; 0 keeps all.
        best: of a point's outputs only the one of the highest predicted IoU goes on.
    """

    def __init__(
        self, weights: DecoderWeights, ops: DeviceOps, *, predicted_iou: float, best: bool = False
    ) -> None:
        assert serves(weights), "the engine asks first"
        self._weights = weights
        self._ops = ops
        self._predicted_iou = predicted_iou
        self._best = best
        self._head = _head_weights(weights)
        self._outputs = tuple(range(1, weights.mask_decoder.num_mask_tokens))
        height, width = weights.prompt_encoder.input_image_size
        self._input_wh = to_device(np.array([width, height], np.float64), weights.position_1CHW.device)
        self.outputs = len(self._outputs)
        self.low_hw = tuple(4 * side for side in weights.position_1CHW.shape[-2:])
        num_tokens = len(weights.form.output_tokens(weights.mask_decoder)) + 2
        scores = math.prod(weights.position_1CHW.shape[-2:]) * weights.mask_decoder.transformer.num_heads
        self._points_at_once = max(1, _PROMPT_NUMBERS // (scores * num_tokens))

    @torch.no_grad()
    def __call__(self, embedding_CHW: Tensor, maps: Sequence[Tensor], points_xy_P2: Tensor) -> GridMasks:
        """The grid's masks.

        Args:
            embedding_CHW: float32, the encoder's.
            maps: further maps of the image, as `SharedImageDecoder.prepare` takes them.
            points_xy_P2: float64, in px of the model's input.
        """
        weights = self._weights
        no_mask = weights.prompt_encoder.no_mask_embed.weight.view(-1, 1, 1)
        shared = lowrank_image.share(weights.stages, (embedding_CHW + no_mask).flatten(1), weights.dtype)
        image = self._head_image(shared, embedding_CHW, maps)
        tokens_PTC = self._tokens(points_xy_P2)

        points, outputs = len(points_xy_P2), len(self._outputs)
        logits_PMhw = embedding_CHW.new_empty(points, outputs, *self.low_hw, dtype=torch.float32)
        iou, keep, cancellation = [], [], []
        for first in range(0, points, self._points_at_once):
            some = slice(first, first + self._points_at_once)
            transformer, stages = weights.mask_decoder.transformer, weights.prompt_stages
            work = InSteps(stages, shared, Scratch(shared.like))
            out_PTC, keys = lowrank.transform(transformer, stages, tokens_PTC[some], work)
            iou_PM = weights.form.predicted_iou(weights.mask_decoder, out_PTC)[:, self._outputs[0] :]
            keep_PM = self._kept(iou_PM)
            self._ops.head(self._head, image, self._head_prompts(out_PTC, keys, keep_PM), logits_PMhw[some])
            iou.append(iou_PM)
            keep.append(keep_PM)
            cancellation.append(keys.cancellation)
        return GridMasks(torch.cat(iou), torch.cat(keep), logits_PMhw, torch.stack(cancellation).amax())

    def _kept(self, iou_PM: Tensor) -> Tensor:
        keep_PM = torch.ones_like(iou_PM, dtype=torch.bool)
        if self._predicted_iou > 0:
            keep_PM = iou_PM > self._predicted_iou
        if self._best:
            best_P1 = iou_PM.argmax(dim=1, keepdim=True)
            keep_PM &= torch.zeros_like(keep_PM).scatter_(1, best_P1, True)
        return keep_PM

    def _tokens(self, points_xy_P2: Tensor) -> Tensor:
        """float32[P, T, C]: the model's own tokens, the point's and a padding point's.

        The prompt encoder's own numbers; it would look for the padding among the points.
        """
        encoder = self._weights.prompt_encoder
        share_P2 = (points_xy_P2 + 0.5) / self._input_wh
        point_PC = encoder.pe_layer._pe_encoding(share_P2.float()) + encoder.point_embeddings[1].weight
        own_TC = self._weights.form.output_tokens(self._weights.mask_decoder)
        count = len(points_xy_P2)
        padding_PC = encoder.not_a_point_embed.weight.expand(count, -1)
        prompt_PNC = torch.stack([point_PC, padding_PC], dim=1)
        return torch.cat([own_TC.expand(count, -1, -1), prompt_PNC], dim=1)

    def _head_image(self, shared: SharedImage, embedding_CHW: Tensor, maps: Sequence[Tensor]) -> HeadImage:
        dtype, head = self._weights.dtype, self._weights.head
        first_C4E = self._head.first_C4E
        shared_S4E = (shared.last_CS.T @ first_C4E.flatten(1)).view(-1, *first_C4E.shape[1:])
        added = head.maps(embedding_CHW, maps)
        middle = fine = None
        if added.middle is not None:
            middle = torch.cat(list(added.middle), dim=1).view_as(shared_S4E)
            tokens, channels = len(shared_S4E), self._head.second_bias_G.shape[0]
            by_row = [
                torch.stack([part.view(tokens, 2, 2, channels) for part in upper], dim=2)
                for upper in added.fine
            ]
            fine = torch.stack(by_row, dim=1).reshape(tokens, 4, 4, channels).contiguous()
        return HeadImage(shared_S4E.to(dtype), middle, fine, embedding_CHW.shape[-1])

    def _head_prompts(self, tokens_PTC: Tensor, keys: ImageKeys, keep_PM: Tensor) -> HeadPrompts:
        form, head = self._weights.form, self._weights.head
        assert keys.rho_P1S is not None, "a transformer has at least one layer"
        rho_PS = keys.rho_P1S[:, 0]
        weight_PS = rho_PS if keys.alpha_P1S is None else rho_PS * keys.alpha_P1S[:, 0]
        first = form.iou_place + 1
        mask_tokens_PMC = tokens_PTC[:, first + self._outputs[0] : first + self._outputs[-1] + 1]
        mapped_PK4E = (keys.factors_PKC @ self._head.first_C4E.flatten(1)).view(
            *keys.factors_PKC.shape[:2], *self._head.first_C4E.shape[1:]
        )
        return HeadPrompts(
            keys.filled_PKS,
            mapped_PK4E.to(keys.rows_PKS.dtype),
            rho_PS.contiguous(),
            weight_PS.contiguous(),
            head.hypernetworks(mask_tokens_PMC, self._outputs).contiguous(),
            keep_PM.to(torch.uint8),
        )


def _head_weights(weights: DecoderWeights) -> HeadWeights:
    """The mask head's, by pixel under a token and by pixel under a pixel."""
    convolution, norm, _, second, _ = weights.mask_decoder.output_upscaling
    first_C4E = convolution.weight.detach().flatten(2).transpose(1, 2).contiguous()
    shift_C = weights.stages[-1].shift_C
    constant_4E = (shift_C @ first_C4E.flatten(1)).view(first_C4E.shape[1:]) + convolution.bias.detach()
    return HeadWeights(
        first_C4E,
        constant_4E.contiguous(),
        norm.weight.detach().contiguous(),
        norm.bias.detach().contiguous(),
        float(norm.eps),
        second.weight.detach().permute(2, 3, 0, 1).flatten(0, 1).contiguous().to(weights.dtype),
        second.bias.detach().contiguous(),
    )
