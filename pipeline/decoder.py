"""The shared-image mask decoder: many prompts on one image, predicted IoU before any mask.

`segment_anything`'s MaskDecoder with the same weights and, within float noise, the same numbers, in another
order: `prepare` does once per image what does not depend on the prompt, `predict` runs the transformer and
the IoU head, and `IouFirst.masks` runs the mask head for the kept outputs only.

Shapes: P prompts, N points of a prompt, M outputs of a prompt (3 or 1), T tokens, C channels, S image tokens
(H x W of the embedding), K kept outputs, h x w low-resolution mask (4H x 4W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts of one shape, in pixels of the model's input (resized, padded) frame.

    Args:
        points_xy_PN2: float[P, N, 2], x before y, or None.
        labels_PN: int or float[P, N]: 1 foreground, 0 background, -1 padding; None exactly when there are no points.
        boxes_xyxy_P4: float[P, 4], or None.
        masks_P1hw: float[P, 1, 4H, 4W] logits of an earlier round, or None.

    Raises:
        ValueError: nothing given, points without labels, or counts that differ.
    """

    points_xy_PN2: Tensor | None = None
    labels_PN: Tensor | None = None
    boxes_xyxy_P4: Tensor | None = None
    masks_P1hw: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points_xy_PN2 is None) != (self.labels_PN is None):
            raise ValueError("points and labels come together: give both or neither")
        counts = {len(part) for part in self._parts()}
        if len(counts) != 1:
            raise ValueError(f"a batch of prompts needs one count over its parts, got {sorted(counts)}")
        if self.points_xy_PN2 is not None and self.labels_PN is not None:
            points, labels = tuple(self.points_xy_PN2.shape), tuple(self.labels_PN.shape)
            if points != (*labels, 2):
                raise ValueError(f"points need shape (P, N, 2) and labels (P, N), got {points} and {labels}")

    def __len__(self) -> int:
        return len(self._parts()[0])

    def __getitem__(self, rows: slice) -> Prompts:
        """The prompts `rows`, the other parts cut alike."""

        def cut(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[rows]

        return Prompts(cut(self.points_xy_PN2), cut(self.labels_PN), cut(self.boxes_xyxy_P4), cut(self.masks_P1hw))

    def _parts(self) -> list[Tensor]:
        parts = (self.points_xy_PN2, self.labels_PN, self.boxes_xyxy_P4, self.masks_P1hw)
        return [part for part in parts if part is not None]


@dataclass(frozen=True)
class ImageState:
    """What all prompts on one image share; made by `SharedImageDecoder.prepare`."""

    embedding_1CHW: Tensor
    position_1CHW: Tensor


@dataclass(frozen=True)
class IouFirst:
    """Predicted IoU of each output, and the means to make the masks of those that are wanted.

    Attributes:
        predicted_iou_PM: float32[P, M].
        output_token_M: the mask token of each column: (1, 2, 3) for several outputs, (0,) for one.
    """

    predicted_iou_PM: Tensor
    output_token_M: tuple[int, ...]
    _decoder: SharedImageDecoder
    _mask_tokens_PMC: Tensor
    _image_PSC: Tensor

    def masks(self, keep_PM: Tensor) -> Tensor:
        """Low-resolution logits of the kept outputs.

        Args:
            keep_PM: bool[P, M]: which outputs to make.

        Returns:
            float32[K, h, w], in the order of `keep_PM.nonzero()`; K may be 0.

        Raises:
            ValueError: `keep_PM` has another shape or type.
        """
        if keep_PM.shape != self.predicted_iou_PM.shape or keep_PM.dtype != torch.bool:
            wanted = tuple(self.predicted_iou_PM.shape)
            raise ValueError(f"keep_PM must be bool{wanted}, got {keep_PM.dtype}{tuple(keep_PM.shape)}")
        return self._decoder.mask_head(self._image_PSC, self._mask_tokens_PMC, self.output_token_M, keep_PM)


class SharedImageDecoder:
    """A prompt encoder and mask decoder of `segment_anything`, for many prompts on one image.

    Args:
        prompt_encoder: `segment_anything.modeling.PromptEncoder`.
        mask_decoder: `segment_anything.modeling.MaskDecoder`; any width, depth, heads and embedding size.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder

    @torch.inference_mode()
    def prepare(self, embedding_CHW: Tensor) -> ImageState:
        """The part of decoding that all prompts on an image share.

        Args:
            embedding_CHW: float[C, H, W] from the image encoder.

        Raises:
            ValueError: another shape than the decoder's embedding.
        """
        wanted = (self._prompt_encoder.embed_dim, *self._prompt_encoder.image_embedding_size)
        if tuple(embedding_CHW.shape) != wanted:
            raise ValueError(f"this decoder takes embeddings of {wanted}, got {tuple(embedding_CHW.shape)}")
        return ImageState(embedding_CHW[None], self._prompt_encoder.get_dense_pe())

    @torch.inference_mode()
    def predict(self, state: ImageState, prompts: Prompts, *, multimask: bool) -> IouFirst:
        """Predicted IoU of each prompt's outputs; no mask is made yet.

        Args:
            state: of the image the prompts are on.
            prompts: P prompts; the memory needed grows with P.
            multimask: three outputs (whole, part, subpart) a prompt, else one.
        """
        points = None if prompts.points_xy_PN2 is None else (prompts.points_xy_PN2, prompts.labels_PN)
        sparse_PNC, dense_PCHW = self._prompt_encoder(points, prompts.boxes_xyxy_P4, prompts.masks_P1hw)
        decoder = self._mask_decoder
        output_tokens_TC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens_PTC = torch.cat([output_tokens_TC.expand(len(prompts), -1, -1), sparse_PNC], dim=1)
        source_PCHW = state.embedding_1CHW + dense_PCHW
        tokens_PTC, image_PSC = decoder.transformer(
            source_PCHW, state.position_1CHW.expand(source_PCHW.shape), tokens_PTC
        )
        output_token_M = tuple(range(1, decoder.num_mask_tokens)) if multimask else (0,)
        iou_PM = decoder.iou_prediction_head(tokens_PTC[:, 0])[:, list(output_token_M)]
        mask_tokens_PMC = tokens_PTC[:, [1 + token for token in output_token_M]]
        return IouFirst(iou_PM.float(), output_token_M, self, mask_tokens_PMC, image_PSC)

    @torch.inference_mode()
    def mask_head(
        self, image_PSC: Tensor, mask_tokens_PMC: Tensor, output_token_M: tuple[int, ...], keep_PM: Tensor
    ) -> Tensor:
        """The two transposed convolutions and hypernetworks, for kept outputs; see `IouFirst.masks`."""
        height, width = self._prompt_encoder.image_embedding_size
        logits = [torch.empty(0, 4 * height, 4 * width)]
        for prompt in keep_PM.any(dim=1).nonzero().flatten().tolist():
            source_1CHW = image_PSC[prompt].T.reshape(1, -1, height, width)
            upscaled_Chw = self._mask_decoder.output_upscaling(source_1CHW)[0]
            kept = keep_PM[prompt].nonzero().flatten().tolist()
            networks = [self._mask_decoder.output_hypernetworks_mlps[output_token_M[m]] for m in kept]
            hyper_KC = torch.stack([mlp(mask_tokens_PMC[prompt, m]) for mlp, m in zip(networks, kept, strict=True)])
            logits.append(F.linear(upscaled_Chw.permute(1, 2, 0), hyper_KC).permute(2, 0, 1))
        return torch.cat(logits)
