"""SAM-HQ, SAM 2 / 2.1, EdgeTAM and SAM 3's promptable image model: their encoders, under the shared decoder.

An image goes through the family's own preparation and encoder, by transformers (SAM-HQ's encoder is SAM's, by
decoder/encoder.py or gpu/encoder.py); prompts go through the shared-image decoder (pipeline/decoder/), whose
description of each family is forms.py. The embedding carries what the family's mask head reads of the image
besides.

Where this differs from transformers' classes on purpose, and where one might think so:
* SAM-HQ's mask head reads the image tokens that the decoder's transformer gives, as in its authors' code.
  transformers 5.23 drops them and upsamples the embedding itself, rows and columns exchanged, so its masks
  hardly depend on the prompt's place; predicted IoU is the same.
* SAM-HQ's three outputs stay in the model's order, so that `output_token` means something; transformers sorts
  them by predicted IoU. The authors' generator keeps the best alone: `masks.outputs = "best"`.
* SAM 3's encoder has a fourth level, which no head reads; transformers adds what an image without a past adds
  to that one, so it has no effect. This is followed here.
* SAM 2's single output chooses among four masks by stability where its configuration says so.

Shape suffixes: B images, C channels, H x W the embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from maskmill.pipeline.decoder.decoder import SharedImageDecoder
from maskmill.pipeline.decoder.encoder import FusedImageEncoder
from maskmill.pipeline.decoder.forms import SAM2, SAM_HQ, DecoderForm, StabilityChoice
from maskmill.pipeline.gpu.choose import choose_ops
from maskmill.pipeline.gpu.encoder import DeviceEncoder
from maskmill.pipeline.gpu.ops import DeviceOps
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.segmenters import family_decoder, from_transformers
from maskmill.pipeline.segmenters.base import GridParts, ImageEmbedding
from maskmill.pipeline.segmenters.family_decoder import DecoderModules
from maskmill.pipeline.segmenters.image import SamImage
from maskmill.pipeline.segmenters.sam import checked_image, images_per_batch
from maskmill.pipeline.segmenters.token_blocks import over_blocks
from maskmill.pipeline.weights import pretrained

if TYPE_CHECKING:
    from maskmill.pipeline.weights.pretrained import Pretrained

Pixels = npt.NDArray[np.uint8]
Prepare = Callable[[Sequence[Pixels], torch.device], Tensor]
"""Images to the model's input, float32[B, 3, S, S] on the device."""


class Encoded(NamedTuple):
    """A batch of images after the encoder: embeddings, and the maps that the mask head reads."""

    features_BCHW: Tensor
    maps: tuple[Tensor, ...]


class Encoder(Protocol):
    """A family's image encoder; a module."""

    def __call__(self, pixels_B3HW: Tensor) -> Encoded:
        """Everything in float32."""
        ...


class Sam2Encoder(nn.Module):
    """SAM 2's, EdgeTAM's and SAM 3's: a pyramid; its two finer levels are brought to the mask head's widths.

    Args:
        vision: transformers' vision encoder of the family.
        fine, middle: the mask decoder's `conv_s0` and `conv_s1`.
        no_memory_11C: what an image without a past adds to its embedding.
        dtype: of the vision encoder.
    """

    def __init__(
        self, vision: nn.Module, fine: nn.Module, middle: nn.Module, no_memory_11C: Tensor, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.vision = over_blocks(vision).to(dtype)
        self.fine, self.middle = fine, middle
        self.register_buffer("no_memory_C11", no_memory_11C.detach().view(-1, 1, 1))
        self._dtype = dtype

    def forward(self, pixels_B3HW: Tensor) -> Encoded:
        """See `Encoder`."""
        levels = self.vision(pixels_B3HW.to(self._dtype), return_dict=True).fpn_hidden_states
        fine, middle, coarse = (level.float() for level in levels[:3])
        if len(levels) == 3:
            coarse = coarse + self.no_memory_C11
        return Encoded(coarse, (self.fine(fine), self.middle(middle)))


class SamHqEncoder(nn.Module):
    """SAM-HQ's: SAM's ViT, and its features after the first layer of global attention.

    Args:
        vit: SAM's image encoder with SAM-HQ's weights, one layer of global attention at least.
        dtype: its number format.
    """

    def __init__(self, vit: ImageEncoderViT, dtype: torch.dtype) -> None:
        super().__init__()
        self.vit = vit.to(dtype)
        self._fused: FusedImageEncoder | DeviceEncoder = FusedImageEncoder(vit)
        self._dtype = dtype

    def run_on(self, ops: DeviceOps) -> None:
        """From now on with attention by a device's operations, which the module is on."""
        self._fused = DeviceEncoder(self.vit, ops)

    def forward(self, pixels_B3HW: Tensor) -> Encoded:
        """See `Encoder`."""
        early: Tensor | None = None
        tokens = self._fused.after_blocks(pixels_B3HW.to(self._dtype))
        for block, tokens_BHWC in zip(self.vit.blocks, tokens, strict=True):
            if early is None and block.window_size == 0:
                early = tokens_BHWC.permute(0, 3, 1, 2).float().clone()
        assert early is not None
        features_BCHW = self.vit.neck(tokens_BHWC.permute(0, 3, 1, 2))
        return Encoded(features_BCHW.float(), (early,))


@dataclasses.dataclass(frozen=True, eq=False)
class FamilyModel:
    """What a family's segmenter is made of.

    Attributes:
        encoder: see `Encoder`; a module.
        modules: prompt encoder and mask decoder.
        form: of the mask decoder.
        prepare: images to the encoder's input.
        stretches: images are stretched to the square input; else they are padded.
    """

    encoder: nn.Module
    modules: DecoderModules
    form: DecoderForm
    prepare: Prepare
    stretches: bool


class FamilySegmenter:
    """A model of another family behind the segmenter protocol.

    Args:
        model: its parts; taken over: moved, set to evaluation.
        device: "auto" is CUDA where there is one, else the CPU.
        dtype: as `SamSegmenter` has it; the encoder is in it already.
        batched: whole grids at once, by pipeline/gpu/; None: where the device is CUDA.

    Raises:
        ValueError: a device that this machine lacks.
    """

    mask_threshold = 0.0

    def __init__(
        self,
        model: FamilyModel,
        *,
        device: str = "auto",
        dtype: str = "float32",
        batched: bool | None = None,
    ) -> None:
        self.device = choose_device(device)
        self._batched = self.device.type == "cuda" if batched is None else batched
        self._model = model
        self._encoder: Encoder = model.encoder.eval().requires_grad_(False).to(self.device)
        if self._batched and isinstance(model.encoder, SamHqEncoder):
            model.encoder.run_on(choose_ops(self.device))
        modules = model.modules.to(self.device)
        self._decoder = SharedImageDecoder(
            modules.prompt_encoder,
            modules.mask_decoder,
            form=model.form,
            dtype=torch.bfloat16 if dtype == "bfloat16" else torch.float32,
        )
        self.image_size = int(modules.prompt_encoder.input_image_size[0])
        self.images_per_batch = images_per_batch(self.image_size, self.device)

    @torch.inference_mode()
    def embed(self, images: Sequence[Pixels]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        if not images:
            return []
        frames = [checked_image(image, self.image_size) for image in images]
        features_BCHW, maps = self._encoder(self._model.prepare(images, self.device))
        stretches = self._model.stretches
        return [
            ImageEmbedding(
                features_BCHW[i],
                frame.height,
                frame.width,
                self.image_size if stretches else frame.input_height,
                self.image_size if stretches else frame.input_width,
                tuple(one[i] for one in maps),
                4 * features_BCHW.shape[-1] if stretches else None,
            )
            for i, frame in enumerate(frames)
        ]

    def grid_parts(self) -> GridParts | None:
        """See `HasGridParts`."""
        return GridParts(self._decoder.weights, self.device) if self._batched else None

    @torch.inference_mode()
    def prompt(self, embedding: ImageEmbedding) -> SamImage:
        """See `Segmenter.prompt`."""
        return SamImage(self._decoder, embedding, self.device)


def load_family(found: Pretrained, family: str, *, device: str, dtype: str) -> FamilySegmenter:
    """The segmenter in a folder.

    Args:
        found: a folder whose model type belongs to the family.
        family: "sam_hq", "sam2", "edgetam" or "sam3".
        device, dtype: see `FamilySegmenter`.

    Raises:
        WeightsError: weights or the processor's settings are missing, damaged or another model's.
    """
    import transformers

    names = {
        "sam_hq": ("SamHQModel", "SamImageProcessor"),
        "sam2": ("Sam2Model", "Sam2ImageProcessor"),
        "edgetam": ("EdgeTamModel", "Sam2ImageProcessor"),
        "sam3": ("Sam3TrackerModel", "Sam3ImageProcessor"),
    }
    model_class, processor_class = (getattr(transformers, name) for name in names[family])
    made: tuple[Any, Any] = pretrained.load(model_class, processor_class, found, dtype="float32")
    model, processor = made

    def prepare(images: Sequence[Pixels], on: torch.device) -> Tensor:
        """By transformers' processor."""
        own = [pretrained.processor_input(image) for image in images]
        pixels_B3HW: Tensor = processor(images=own, return_tensors="pt", device=on)["pixel_values"]
        return pixels_B3HW

    of = _sam_hq if family == "sam_hq" else sam2_model
    return FamilySegmenter(
        of(model, found.folder, prepare, getattr(torch, dtype)), device=device, dtype=dtype
    )


def _sam_hq(model: Any, folder: Path, prepare: Prepare, dtype: torch.dtype) -> FamilyModel:
    modules = family_decoder.of_transformers(model, SAM_HQ, folder)
    vit = from_transformers.convert_image_encoder(model.vision_encoder, folder)
    return FamilyModel(SamHqEncoder(vit, dtype), modules, SAM_HQ, prepare, stretches=False)


def sam2_model(model: Any, folder: Path, prepare: Prepare, dtype: torch.dtype) -> FamilyModel:
    """SAM 2's kind, with the choice of a single mask that the configuration asks for.

    Args:
        model: transformers' `Sam2Model`, `EdgeTamModel` or `Sam3TrackerModel`.
        folder: of its weights, for messages.
        prepare: images to the encoder's input.
        dtype: of the vision encoder.

    Raises:
        WrongWeights: a configuration that the family's public code has not.
    """
    decoder, config = model.mask_decoder, model.config.mask_decoder_config
    form = SAM2
    if config.dynamic_multimask_via_stability:
        offset = config.dynamic_multimask_stability_delta
        choice = StabilityChoice(offset, config.dynamic_multimask_stability_thresh)
        form = dataclasses.replace(SAM2, choice=choice)
    modules = family_decoder.of_transformers(model, form, folder)
    encoder = Sam2Encoder(
        model.vision_encoder, decoder.conv_s0, decoder.conv_s1, model.no_memory_embedding, dtype
    )
    return FamilyModel(encoder, modules, form, prepare, stretches=True)
