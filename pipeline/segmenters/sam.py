"""Any `segment_anything` `Sam` as a segmenter: ViT-B, L, H, and nano, which only has another encoder.

Sizes come from the model: the square input from its encoder, the embedding and logits from its prompt
encoder. Images are resized and normalised exactly as `SamPredictor.set_image` does (PIL's antialiased
bilinear on uint8).

Shape suffixes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.build_sam import sam_model_registry
from torch.nn import functional as F

from maskmill.pipeline.decoder import decoder
from maskmill.pipeline.decoder.encoder import fuse_attention
from maskmill.pipeline.decoder.resize import resize
from maskmill.pipeline.frame import Frame
from maskmill.pipeline.gpu.ahead import ResizedAhead
from maskmill.pipeline.gpu.batch_encoder import BatchEncoder
from maskmill.pipeline.gpu.encoder import on_device
from maskmill.pipeline.gpu.ops import choose_ops
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import check_rgb
from maskmill.pipeline.segmenters import from_transformers, mobile, student
from maskmill.pipeline.segmenters.base import GridParts, ImageEmbedding
from maskmill.pipeline.segmenters.from_transformers import set_pixel_statistics
from maskmill.pipeline.segmenters.image import SamImage
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.families import STUDENT
from maskmill.pipeline.unfit import TOO_THIN, UnfitPicture
from maskmill.pipeline.weights import pretrained, weights
from maskmill.pipeline.weights.errors import WrongWeights

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_BATCH_PIXELS_CPU = 1024 * 1024
_BATCH_PIXELS_GPU = 8 * 1024 * 1024
"""Model input pixels embedded together: on the CPU one image of 1024 px a side, or 16 of 256."""


class SamSegmenter:
    """A `Sam` behind the segmenter protocol.

    Args:
        sam: the model; taken over: moved, set to evaluation.
        device: "auto" is CUDA where there is one, else the CPU.
        dtype: "float32"; "bfloat16": encoder and decoder compute in it, predicted IoU and logits in
            float32; "float16": the encoder alone.
        batched: whole batches and grids at once, by pipeline/gpu/; None: where the device is CUDA.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(
        self, sam: Sam, *, device: str = "auto", dtype: str = "float32", batched: bool | None = None
    ) -> None:
        self.device = choose_device(device)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._sam = sam.eval().requires_grad_(False).to(self.device)
        self._batched = self.device.type == "cuda" if batched is None else batched
        self._ahead = ResizedAhead()
        encoder = sam.image_encoder.to(self._dtype)
        self._encoder = fuse_attention(encoder)
        if self._batched:
            ops = choose_ops(self.device)
            self._batch_encoder = BatchEncoder(
                on_device(encoder, ops), sam.pixel_mean, sam.pixel_std, encoder.img_size, self._dtype
            )
        self._decoder = decoder.SharedImageDecoder(
            sam.prompt_encoder,
            sam.mask_decoder,
            dtype=torch.bfloat16 if self._dtype == torch.bfloat16 else torch.float32,
        )
        self.image_size: int = sam.image_encoder.img_size
        self.mask_threshold: float = sam.mask_threshold
        self.images_per_batch = images_per_batch(self.image_size, self.device)

    @torch.inference_mode()
    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`."""
        if not images:
            return []
        frames = [checked_image(image, self.image_size) for image in images]
        if self._batched:
            resized = [self._resized(image, frame) for image, frame in zip(images, frames, strict=True)]
            return _embeddings(self._batch_encoder(resized), frames)
        inputs_B3HW = torch.stack(
            [self._preprocess(image, frame) for image, frame in zip(images, frames, strict=True)]
        )
        return _embeddings(self._encoder(inputs_B3HW.to(self._dtype)).float(), frames)

    def grid_parts(self) -> GridParts | None:
        """See `HasGridParts`."""
        return GridParts(self._decoder.weights, self.device, self._resize_ahead) if self._batched else None

    def _resize_ahead(self, images: Sequence[npt.NDArray[np.uint8]]) -> None:
        for image in images:
            frame = checked_image(image, self.image_size)
            self._ahead.put(image, self._resized(image, frame))

    def _resized(self, image: npt.NDArray[np.uint8], frame: Frame) -> npt.NDArray[np.uint8]:
        """uint8[H, W, 3] of the model's input, without padding."""
        ready = self._ahead.take(image)
        if ready is not None:
            return ready
        threads = torch.get_num_threads()
        return resize(image, height=frame.input_height, width=frame.input_width, threads=threads)

    def prompt(self, embedding: ImageEmbedding) -> SamImage:
        """See `Segmenter.prompt`."""
        return SamImage(self._decoder, embedding, self.device)

    def _preprocess(self, image: npt.NDArray[np.uint8], frame: Frame) -> torch.Tensor:
        """float32[3, S, S]: resized, normalised, zeros at the right and below."""
        pixels_3HW = (
            torch.tensor(self._resized(image, frame), device=self.device).permute(2, 0, 1).contiguous()
        )
        normal_3HW = (pixels_3HW - self._sam.pixel_mean) / self._sam.pixel_std
        return F.pad(
            normal_3HW, (0, self.image_size - frame.input_width, 0, self.image_size - frame.input_height)
        )


def _embeddings(features_BCHW: torch.Tensor, frames: Sequence[Frame]) -> list[ImageEmbedding]:
    return [
        ImageEmbedding(features_CHW, frame.height, frame.width, frame.input_height, frame.input_width)
        for features_CHW, frame in zip(features_BCHW, frames, strict=True)
    ]


def load_sam_segmenter(settings: SegmenterSettings) -> SamSegmenter:
    """The segmenter that settings name, of a family with SAM's decoder; see `load_segmenter`."""
    path = weights.resolve(settings)
    return SamSegmenter(load_sam(settings.model, path), device=settings.device, dtype=settings.dtype)


def load_sam(model: str, path: Path) -> Sam:
    """A model with SAM's decoder, in float32 on the CPU.

    Args:
        model: a family whose encoder is "ours" (`maskmill.pipeline.settings.families`).
        path: of its weights: a file, or a folder of transformers' SAM.

    Raises:
        WeightsError: weights that are damaged, refused or another model's.
    """
    if model == "sam":
        found = pretrained.find(str(path), role="segmenter", model_types=("sam",))
        return from_transformers.load_sam(found)
    if path.is_dir():
        pretrained.find(str(path), role="segmenter", model_types=("sam",))
        return build_sam(model, from_transformers.rename(weights.read_folder(path)), path)
    tensors = weights.read_model(path)
    if model == "nano":
        if not weights.looks_like(tensors).startswith("a maskmill student"):
            raise WrongWeights(
                f"weights file {path} does not fit nano: it looks like {weights.looks_like(tensors)}"
            )
        return student.load_student(path)
    if model.startswith(f"{STUDENT}:"):
        return mobile.load_mobile(model.partition(":")[2], tensors, path)
    return build_sam(model, tensors, path)


def build_sam(model: str, tensors: dict[str, torch.Tensor], path: Path) -> Sam:
    """A ViT of segment_anything with given weights, in float32 on the CPU.

    Args:
        model: "vit_b", "vit_l" or "vit_h".
        tensors: its weights by name.
        path: of their file, for messages.

    Raises:
        WrongWeights: they don't fit the model.
    """
    with torch.device("meta"):  # shapes without the minutes that random numbers take
        sam = sam_model_registry[model]()
    weights.check_fit(tensors, sam.state_dict(), model=model, path=path)
    sam.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    set_pixel_statistics(sam)
    return sam


def images_per_batch(image_size: int, device: torch.device) -> int:
    """How many images of a model input's side to embed together."""
    batch_pixels = _BATCH_PIXELS_CPU if device.type == "cpu" else _BATCH_PIXELS_GPU
    return max(1, batch_pixels // image_size**2)


def checked_image(image: npt.NDArray[np.uint8], image_size: int) -> Frame:
    """Where an image lies in a padded model input.

    Args:
        image: uint8[H, W, 3] RGB.
        image_size: side of the model's square input in px.

    Raises:
        ValueError: what is no image.
        UnfitPicture: it is thinner than a pixel of the model's input.
    """
    check_rgb(image)
    height, width = image.shape[:2]
    if int(min(height, width) * (image_size / max(height, width)) + 0.5) < 1:
        raise UnfitPicture(
            TOO_THIN,
            f"an image of {width}x{height} px is thinner than a pixel at the model's "
            f"{image_size} px: cut it into parts",
        )
    return Frame.of_image(image_size, height=height, width=width)
