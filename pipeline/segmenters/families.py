"""SAM-HQ, SAM 2 / 2.1, EdgeTAM and SAM 3's promptable image model, by transformers' own modules.

Their decoders differ from SAM's (an HQ token and early features; finer feature maps, an object token, a
sigmoid on predicted IoU), so the shared-image decoder does not apply: each runs its own code, in chunks of
prompts. What carries over is the order: `predict` stops at predicted IoU, and `masks` upsamples only prompts
with a wanted output. The embedding is made once per image with transformers' own image processor.

Where this differs from the classes' `forward`, on purpose:
* SAM-HQ's mask head reads the image tokens that the decoder's transformer gives, as in its authors' code.
  transformers 5.23 drops them and upsamples the embedding itself, rows and columns exchanged, so its masks
  hardly depend on the prompt's place; predicted IoU is the same.
* SAM-HQ's three outputs stay in the model's order, so that `output_token` means something; transformers sorts
  them by predicted IoU.
* SAM 2's single output chooses among four masks by stability (`dynamic_multimask_via_stability`); it needs
  all four, so with `multimask=False` nothing is saved.

Shape suffixes: P prompts, M outputs of a prompt, T tokens, C channels, H x W the embedding, h x w logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.segmenters.base import ImageEmbedding, Prediction, Prompts
from maskmill.pipeline.segmenters.family_decoders import PARTS, Chunk, Decoding
from maskmill.pipeline.segmenters.sam import checked_image, images_per_batch
from maskmill.pipeline.weights import pretrained

if TYPE_CHECKING:
    from maskmill.pipeline.weights.pretrained import Pretrained

# Numbers in the image tokens of a chunk of prompts: 8 prompts at 64 x 64 x 256 on a CPU.
_CHUNK_NUMBERS_CPU = 2**23
_CHUNK_NUMBERS_GPU = 2**27


class FamilySegmenter:
    """A model of another family behind the segmenter protocol.

    Args:
        decoding: with its model, which is taken over: moved, set to evaluation.
        processor: transformers' image processor of the model.
        device: "auto" is CUDA where there is one, else the CPU.
        dtype: of the image encoder, "float32", "bfloat16" or "float16"; prompts and masks stay float32.

    Raises:
        ValueError: a device that this machine lacks.
    """

    mask_threshold = 0.0

    def __init__(
        self, decoding: Decoding, processor: Any, *, device: str = "auto", dtype: str = "float32"
    ) -> None:
        self.device = choose_device(device)
        self._decoding = decoding
        self._processor = processor
        model = decoding.model.eval().requires_grad_(False).to(self.device)
        if dtype != "float32":
            model.vision_encoder = _InNumberFormat(model.vision_encoder, getattr(torch, dtype))
        self.image_size = int(_side(model.prompt_encoder.input_image_size))
        self.images_per_batch = images_per_batch(self.image_size, self.device)

    @torch.inference_mode()
    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        if not images:
            return []
        for image in images:
            checked_image(image, self.image_size)
        own = [pretrained.processor_input(image) for image in images]
        inputs = self._processor(images=own, return_tensors="pt", device=self.device)
        sizes = [self._input_size(image.shape[0], image.shape[1]) for image in images]
        return [
            ImageEmbedding(features, image.shape[0], image.shape[1], *size, maps, self._logits_size(features))
            for image, size, (features, maps) in zip(
                images, sizes, self._decoding.embed(inputs["pixel_values"]), strict=True
            )
        ]

    def prompt(self, embedding: ImageEmbedding) -> FamilyImage:
        """See `Segmenter.prompt`."""
        return FamilyImage(self._decoding, embedding, self.device)

    def _input_size(self, height: int, width: int) -> tuple[int, int]:
        if self._decoding.stretches:
            return self.image_size, self.image_size
        scale = self.image_size / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def _logits_size(self, features_CHW: Tensor) -> int | None:
        return 4 * features_CHW.shape[-1] if self._decoding.stretches else None


class FamilyImage:
    """An embedding, ready for prompts; see `PromptableImage`."""

    @torch.inference_mode()
    def __init__(self, decoding: Decoding, embedding: ImageEmbedding, device: torch.device) -> None:
        self.embedding = embedding
        self._decoding = decoding
        self._device = device
        self._positions_1CHW: Tensor = decoding.model.get_image_wide_positional_embeddings()
        self._maps = decoding.shared_maps(embedding)

    @torch.inference_mode()
    def predict(self, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """See `PromptableImage.predict`.

        Raises:
            ValueError: no prompts.
        """
        if len(prompts) == 0:
            raise ValueError("no prompts: give at least one")
        numbers = _CHUNK_NUMBERS_CPU if self._device.type == "cpu" else _CHUNK_NUMBERS_GPU
        size = max(1, numbers // self.embedding.features_CHW.numel())
        chunks = tuple(self._transform(prompts, slice(at, at + size)) for at in range(0, len(prompts), size))
        ious = [self._decoding.predicted_iou(chunk.tokens_PTC) for chunk in chunks]
        if multimask:
            return _Several(torch.cat(ious)[:, 1:], self._decoding, self._maps, chunks)
        singles = [
            self._decoding.single(self._decoding.logits(chunk, self._maps), iou_P4)
            for chunk, iou_P4 in zip(chunks, ious, strict=True)
        ]
        logits_P1hw, iou_P1 = (torch.cat(parts) for parts in zip(*singles, strict=True))
        return _Single(iou_P1, logits_P1hw)

    def _transform(self, prompts: Prompts, part: slice) -> Chunk:
        """Encodes some of the prompts and runs the decoder's transformer on them."""
        model = self._decoding.model
        sparse_1PNC, dense_PCHW = self._encode(prompts, part)
        tokens_TC = self._decoding.output_tokens()
        tokens_PTC = tokens_TC.expand(dense_PCHW.shape[0], -1, -1)
        if sparse_1PNC is not None:
            tokens_PTC = torch.cat([tokens_TC.expand(sparse_1PNC.shape[1], -1, -1), sparse_1PNC[0]], dim=1)
        image_PCHW = (self.embedding.features_CHW[None] + dense_PCHW).expand(len(tokens_PTC), -1, -1, -1)
        out_1PTC, image_P1SC = model.mask_decoder.transformer(
            point_embeddings=tokens_PTC[None],
            image_embeddings=image_PCHW,
            image_positional_embeddings=self._positions_1CHW.expand(len(tokens_PTC), -1, -1, -1),
            attention_similarity=None,
            target_embedding=None,
        )[:2]
        return Chunk(out_1PTC[0], image_P1SC[:, 0].transpose(1, 2).reshape(image_PCHW.shape))

    def _encode(self, prompts: Prompts, part: slice) -> tuple[Tensor | None, Tensor]:
        """The prompt encoder: sparse float[1, P, N, C], dense float[P or 1, C, H, W]."""
        scale_xy = np.array(
            [
                self.embedding.input_width / self.embedding.width,
                self.embedding.input_height / self.embedding.height,
            ]
        )
        points, labels, boxes = prompts.points_PK2, prompts.labels_PK, prompts.boxes_P4
        masks = None if prompts.masks_P1HW is None else prompts.masks_P1HW[part].to(self._device)
        if points is None and boxes is None and self._decoding.stretches:  # SAM 2 asks for a point of padding
            points = np.zeros((len(prompts), 1, 2))
            labels = np.full((len(prompts), 1), -1)
        sparse, dense = self._decoding.model.prompt_encoder(
            input_points=None if points is None else self._tensor(points[part] * scale_xy).float()[None],
            input_labels=None if labels is None else self._tensor(labels[part]).int()[None],
            input_boxes=None
            if boxes is None
            else self._tensor(boxes[part] * np.tile(scale_xy, 2)).float()[None],
            input_masks=masks,
        )
        return sparse, dense

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


@dataclass(frozen=True)
class _Several:
    """Three outputs a prompt: predicted IoU now, masks of those wanted; see `Prediction`."""

    predicted_iou_PM: Tensor
    _decoding: Decoding
    _maps: tuple[Tensor, ...]
    _chunks: tuple[Chunk, ...]

    @torch.inference_mode()
    def masks(self, keep_PM: Tensor) -> Tensor:
        """See `Prediction.masks`."""
        _check_keep(keep_PM, self.predicted_iou_PM)
        side = 4 * self._chunks[0].image_PCHW.shape[-1]
        made = [self.predicted_iou_PM.new_empty(0, side, side)]
        prompt = 0
        for chunk in self._chunks:
            keep = keep_PM[prompt : prompt + len(chunk.tokens_PTC)]
            rows_R = keep.any(dim=1).nonzero().flatten()
            if len(rows_R):
                wanted = Chunk(chunk.tokens_PTC[rows_R], chunk.image_PCHW[rows_R])
                made.append(self._decoding.logits(wanted, self._maps)[:, 1:][keep[rows_R]])
            prompt += len(keep)
        return torch.cat(made)


@dataclass(frozen=True)
class _Single:
    """One output a prompt, made already; see `Prediction`."""

    predicted_iou_PM: Tensor
    _logits_P1hw: Tensor

    def masks(self, keep_PM: Tensor) -> Tensor:
        """See `Prediction.masks`."""
        _check_keep(keep_PM, self.predicted_iou_PM)
        return self._logits_P1hw[keep_PM]


class _InNumberFormat(nn.Module):
    """An image encoder in another number format; floats in and out stay float32."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self.dtype = dtype

    def forward(self, pixel_values: Tensor, **settings: Any) -> Any:
        """The encoder's outputs, all of them in float32."""
        outputs = self.encoder(pixel_values.to(self.dtype), **settings)
        for name, value in list(outputs.items()):
            outputs[name] = _to_float(value)
        return outputs


def load_family(found: Pretrained, family: str, *, device: str, dtype: str) -> FamilySegmenter:
    """The segmenter in a folder.

    Args:
        found: a folder whose model type belongs to the family.
        family: one of `PARTS` (family_decoders.py).
        device, dtype: see `FamilySegmenter`.

    Raises:
        WeightsError: weights or the processor's settings are missing, damaged or another model's.
    """
    import transformers

    parts = PARTS[family]
    model = pretrained.load_model(getattr(transformers, parts.model), found, dtype=torch.float32)
    processor = pretrained.load_processor(getattr(transformers, parts.processor), found)
    return FamilySegmenter(parts.decoding(model), processor, device=device, dtype=dtype)


def _check_keep(keep_PM: Tensor, iou_PM: Tensor) -> None:
    if keep_PM.shape != iou_PM.shape or keep_PM.dtype != torch.bool:
        raise ValueError(
            f"keep_PM must be bool{tuple(iou_PM.shape)}, got {keep_PM.dtype}{tuple(keep_PM.shape)}"
        )


def _to_float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, tuple | list):
        return type(value)(_to_float(item) for item in value)
    return value


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[0]
