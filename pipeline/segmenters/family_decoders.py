"""What differs between the decoders of SAM 2 (with EdgeTAM and SAM 3's tracker) and of SAM-HQ.

Which tokens they read, what they keep of an image, how tokens become predicted IoU and masks. Everything is
the classes' own modules, called in the order that families.py needs and explains.

Shape suffixes: P prompts, M outputs of a prompt, T tokens, C channels, H x W the embedding, h x w logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskmill.pipeline.segmenters.base import ImageEmbedding


@dataclass(frozen=True)
class Chunk:
    """Some prompts after the transformer."""

    tokens_PTC: Tensor
    image_PCHW: Tensor


class Sam2Decoding:
    """The decoder of SAM 2, EdgeTAM and SAM 3's tracker; tokens: object, IoU, four masks."""

    stretches = True

    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_masks: int = model.mask_decoder.num_mask_tokens

    def output_tokens(self) -> Tensor:
        """float[T, C]: what the decoder puts before the prompt."""
        decoder = self.model.mask_decoder
        weight_TC: Tensor = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        return weight_TC

    def embed(self, pixels_B3HW: Tensor) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Each image's embedding and its finer maps."""
        *maps, features_BCHW = self.model.get_image_embeddings(pixels_B3HW)
        return [(features, tuple(m[i] for m in maps)) for i, features in enumerate(features_BCHW)]

    def shared_maps(self, embedding: ImageEmbedding) -> tuple[Tensor, ...]:
        """What the mask head reads of the image, once for all prompts."""
        return tuple(map_CHW[None] for map_CHW in embedding.maps)

    def predicted_iou(self, tokens_PTC: Tensor) -> Tensor:
        """float[P, 4] of every output, by the IoU token."""
        iou_P4: Tensor = self.model.mask_decoder.iou_prediction_head(tokens_PTC[:, 1])
        return iou_P4

    def logits(self, chunk: Chunk, maps: tuple[Tensor, ...]) -> Tensor:
        """float32[P, 4, h, w] of every output.

        Source: transformers/models/sam2/modeling_sam2.py::Sam2MaskDecoder.forward.
        """
        decoder = self.model.mask_decoder
        fine_1Chw, middle_1Chw = maps
        upscaled = decoder.upscale_conv1(chunk.image_PCHW) + middle_1Chw
        upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
        upscaled_PChw = decoder.activation(decoder.upscale_conv2(upscaled) + fine_1Chw)
        return _mix(_hyper(decoder.output_hypernetworks_mlps, chunk.tokens_PTC[:, 2:]), upscaled_PChw)

    def single(self, logits_P4hw: Tensor, iou_P4: Tensor) -> tuple[Tensor, Tensor]:
        """The single-mask output: token 0, or the best of the others where it is unstable."""
        decoder = self.model.mask_decoder
        if not decoder.dynamic_multimask_via_stability:
            return logits_P4hw[:, :1], iou_P4[:, :1]
        logits, iou = decoder._dynamic_multimask_via_stability(logits_P4hw[None], iou_P4[None])
        return logits[0], iou[0]


class SamHqDecoding:
    """The decoder of SAM-HQ; tokens: IoU, four masks, HQ. Each mask is its own plus the HQ mask."""

    stretches = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_masks: int = model.mask_decoder.num_mask_tokens - 1  # transformers counts the HQ token

    def output_tokens(self) -> Tensor:
        """float[T, C]: what the decoder puts before the prompt."""
        decoder = self.model.mask_decoder
        weight_TC: Tensor = torch.cat(
            [decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight]
        )
        return weight_TC

    def embed(self, pixels_B3HW: Tensor) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
        """Each image's embedding and the ViT's early features."""
        features_BCHW, early = self.model.get_image_embeddings(pixels_B3HW)
        early_BCHW = early[0].permute(0, 3, 1, 2)
        return [(features, (early_BCHW[i],)) for i, features in enumerate(features_BCHW)]

    def shared_maps(self, embedding: ImageEmbedding) -> tuple[Tensor, ...]:
        """The HQ features: the embedding and the ViT's early features, both upsampled."""
        decoder = self.model.mask_decoder
        final = decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(embedding.features_CHW[None])))
        early = decoder.compress_vit_conv1(embedding.maps[0][None].contiguous())
        early = decoder.activation(decoder.compress_vit_norm(early))
        return (decoder.encoder_conv2(final) + decoder.compress_vit_conv2(early),)

    def predicted_iou(self, tokens_PTC: Tensor) -> Tensor:
        """float[P, 4] of every output, by the IoU token."""
        iou_P4: Tensor = self.model.mask_decoder.iou_prediction_head(tokens_PTC[:, 0])
        return iou_P4

    def logits(self, chunk: Chunk, maps: tuple[Tensor, ...]) -> Tensor:
        """float32[P, 4, h, w] of every output.

        Source: transformers/models/sam_hq/modeling_sam_hq.py::SamHQMaskDecoder.forward, hq_token_only=False.
        """
        decoder = self.model.mask_decoder
        upscaled = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(chunk.image_PCHW)))
        upscaled_PChw = decoder.activation(decoder.upscale_conv2(upscaled))
        hq = decoder.activation(decoder.mask_norm(decoder.mask_conv1(upscaled_PChw)))
        hq_PChw = decoder.mask_conv2(hq) + maps[0]
        own_tokens_PMC = chunk.tokens_PTC[:, 1 : 1 + self.num_masks]
        own_PMhw = _mix(_hyper(decoder.output_hypernetworks_mlps, own_tokens_PMC), upscaled_PChw)
        hq_token_P1C = chunk.tokens_PTC[:, 1 + self.num_masks, None]
        return own_PMhw + _mix(_hyper([decoder.hq_mask_mlp], hq_token_P1C), hq_PChw)

    def single(self, logits_P4hw: Tensor, iou_P4: Tensor) -> tuple[Tensor, Tensor]:
        """The single-mask output: token 0."""
        return logits_P4hw[:, :1], iou_P4[:, :1]


Decoding = Sam2Decoding | SamHqDecoding


@dataclass(frozen=True)
class FamilyParts:
    """What a family is put together from; the first two are transformers' classes, by name."""

    model: str
    processor: str
    decoding: Callable[[Any], Decoding]


PARTS: Mapping[str, FamilyParts] = {
    "sam_hq": FamilyParts("SamHQModel", "SamImageProcessor", SamHqDecoding),
    "sam2": FamilyParts("Sam2Model", "Sam2ImageProcessor", Sam2Decoding),
    "edgetam": FamilyParts("EdgeTamModel", "Sam2ImageProcessor", Sam2Decoding),
    "sam3": FamilyParts("Sam3TrackerModel", "Sam3ImageProcessor", Sam2Decoding),
}
"""Every family that runs its own decoder. To add one: its line here, its entry in `FAMILIES`
(pipeline/settings/families.py), and above, its decoding, where none of these fits."""


def _hyper(mlps: Any, tokens_PMC: Tensor) -> Tensor:
    """float[P, M, G]: each output's weights for the upscaled channels, by its own MLP."""
    return torch.stack([mlp(tokens_PMC[:, place]) for place, mlp in enumerate(mlps)], dim=1)


def _mix(hyper_PMG: Tensor, upscaled_PGhw: Tensor) -> Tensor:
    mixed = hyper_PMG @ upscaled_PGhw.flatten(2)
    return mixed.view(*mixed.shape[:2], *upscaled_PGhw.shape[-2:])
