"""How images are taken in. Light to import, so that command lines may read it; codec.py does the work."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from maskmill.pipeline.checks import check_int

INGEST_REVISION = 2
"""Raise when `codec.normalise` gives other bytes for the same input; `rules` keeps the ones before.

1: 16-bit pictures whose zero is white were stored inverted, a TIFF with a smaller copy of its picture was
rejected as animated, a colour profile was judged by its name, a 16-bit PGM was rejected.
"""

FULL, MIN_MAX, PERCENTILE = "full", "min-max", "percentile"
RANGES = (FULL, MIN_MAX, PERCENTILE)

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
        range: what becomes black and white of pictures of more than 8 bits: "full" (all that the format can
            hold), "min-max" or "percentile" (the picture's own values; floats are taken too).
        rules: how files are read, from 1 to `INGEST_REVISION`; None keeps the rules that a dataset was begun
            with, and is the newest for a new one.
        photograph: the field of a WebDataset sample that is the photograph, such as "jpg" or "image.png";
            None goes by the rule in docs/formats.md.

    Raises:
        ValueError: a value out of its range.
    """

    max_shorter_side_px: int | None = 1500
    jpeg_quality: int = 95
    min_side_px: int = 16
    max_pixels: int = 175_000_000
    range: str = FULL
    rules: int | None = None
    photograph: str | None = None

    @property
    def max_bytes(self) -> int:
        """What a file of `max_pixels` can need in a format that is read; one with more is not read."""
        return 8 * self.max_pixels + (16 << 20)  # 16-bit RGBA, and what is written beside the pixels

    def __post_init__(self) -> None:
        if self.max_shorter_side_px is not None:
            check_int("max_shorter_side_px", self.max_shorter_side_px, 64, JPEG_MAX_SIDE_PX)
        check_int("jpeg_quality", self.jpeg_quality, 1, 100)
        check_int("min_side_px", self.min_side_px, 1, JPEG_MAX_SIDE_PX)
        check_int("max_pixels", self.max_pixels, 1, PILLOW_MAX_PIXELS)
        if self.range not in RANGES:
            raise ValueError(f"range={self.range!r} is unknown: use one of {', '.join(RANGES)}")
        if self.rules is not None:
            check_int("rules", self.rules, 1, INGEST_REVISION)

    @property
    def rules_in_force(self) -> int:
        """`rules`, or the newest."""
        return INGEST_REVISION if self.rules is None else self.rules

    def facts(self) -> dict[str, object]:
        """The settings that change what is stored, as a fingerprint takes them; `rules` is its revision.

        A setting that came later is left out where it changes nothing, so that fingerprints stay.
        """
        found = dataclasses.asdict(self)
        del found["rules"], found["photograph"]  # the second decides what is planned, not how it is read
        if self.range == FULL:
            del found["range"]
        return found
