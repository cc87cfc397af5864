"""A batch of pictures through an image encoder on a device, the host waiting for nothing.

Resized pictures go up as bytes, from pinned memory, in batches of a power of two; normalising, padding and
the encoder are one region (region.py). What comes out is the batch's own memory, so embeddings may be kept.

Shapes: B pictures, S the model input's side, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from maskmill.pipeline.gpu.axis_tables import to_device
from maskmill.pipeline.gpu.region import Region
from maskmill.pipeline.pixels import Pixels


class BatchEncoder:
    """An encoder and what comes before it.

    Args:
        encoder: takes normalised, padded pictures in its own number format.
        pixel_mean_311, pixel_std_311: float32.
        image_size: S.
        dtype: the encoder's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pixel_mean_311: Tensor,
        pixel_std_311: Tensor,
        image_size: int,
        dtype: torch.dtype,
    ) -> None:
        self._encoder = encoder
        self._mean, self._std = pixel_mean_311, pixel_std_311
        self._image_size = image_size
        self._dtype = dtype
        self._device = pixel_mean_311.device
        self._along_S = torch.arange(image_size, device=self._device)
        self.region: Region[Tensor] = Region("encoder", self._encode)

    def __call__(self, resized: Sequence[Pixels]) -> Tensor:
        """float32[B, C, h, w]: embeddings.

        Args:
            resized: uint8[H, W, 3] each, neither side above S.
        """
        batch = 1 << (len(resized) - 1).bit_length()
        side, pinned = self._image_size, self._device.type == "cuda"
        pixels_BSS3 = torch.zeros(batch, side, side, 3, dtype=torch.uint8, pin_memory=pinned)
        for place, one in zip(pixels_BSS3.numpy(), resized, strict=False):
            place[: one.shape[0], : one.shape[1]] = one
        sizes_B2 = np.zeros((batch, 2), np.int64)
        sizes_B2[: len(resized)] = [one.shape[:2] for one in resized]
        on_device = pixels_BSS3.to(self._device, non_blocking=True)
        features = self.region(on_device, to_device(sizes_B2, self._device))[: len(resized)]
        return features.to(torch.float32, copy=True)

    def _encode(self, pixels_BSS3: Tensor, sizes_B2: Tensor) -> Tensor:
        """Normalised where the picture is, zeros beside it, as `Sam.preprocess`; then the encoder."""
        normal_B3SS = (pixels_BSS3.permute(0, 3, 1, 2) - self._mean) / self._std
        inside_BSS = self._along_S[:, None] < sizes_B2[:, :1, None]
        inside_BSS = inside_BSS & (self._along_S < sizes_B2[:, 1:, None])
        padded_B3SS = torch.where(inside_BSS[:, None], normal_B3SS, 0.0)
        features: Tensor = self._encoder(padded_B3SS.to(self._dtype))
        return features
