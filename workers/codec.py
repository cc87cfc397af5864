"""Bytes to arrays and back: the only bridge between the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

INGEST_REVISION = 1


class DecodeError(Exception):
    """These bytes are no image we can use. `reason` is a short word to count by, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How images are stored. A shorter side over `max_shorter_side_px` is scaled down to it; None keeps sizes."""

    max_shorter_side_px: int | None = 1500
    jpeg_quality: int = 95
    min_side_px: int = 16
    max_pixels: int = 200_000_000


@dataclass(frozen=True)
class NormalisedImage:
    """An image as it is stored. `pixels_HWC` is what `decode_image(jpeg)` gives."""

    jpeg: bytes
    width: int
    height: int
    converted: str
    pixels_HWC: npt.NDArray[np.uint8]
