"""How images are taken in. Light to import, so that command lines may read it; codec.py does the work."""

from __future__ import annotations

from dataclasses import dataclass

from maskmill.pipeline.checks import check_int

INGEST_REVISION = 1
"""Raise when `codec.normalise` gives other bytes for the same input."""

PILLOW_MAX_PIXELS = 178_956_970
"""Pillow itself refuses more, being twice its `MAX_IMAGE_PIXELS`."""

JPEG_MAX_SIDE_PX = 65_500
"""libjpeg's limit."""


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How images are taken in; every field changes what is stored.

    Args:
        max_shorter_side_px: a longer shorter side is scaled down to this, from 64; None keeps sizes. SA-1B's
            is 1500.
        jpeg_quality: of images that have to be encoded, 1 to 100.
        min_side_px: images with a side under this are rejected, at least 1.
        max_pixels: images with more pixels are rejected undecoded, at most `PILLOW_MAX_PIXELS`.

    Raises:
        ValueError: a value out of its range.
    """

    max_shorter_side_px: int | None = 1500
    jpeg_quality: int = 95
    min_side_px: int = 16
    max_pixels: int = 175_000_000

    def __post_init__(self) -> None:
        if self.max_shorter_side_px is not None:
            check_int("max_shorter_side_px", self.max_shorter_side_px, 64, JPEG_MAX_SIDE_PX)
        check_int("jpeg_quality", self.jpeg_quality, 1, 100)
        check_int("min_side_px", self.min_side_px, 1, JPEG_MAX_SIDE_PX)
        check_int("max_pixels", self.max_pixels, 1, PILLOW_MAX_PIXELS)
