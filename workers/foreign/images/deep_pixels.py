"""Pixels of more than 8 bits, made 8 bits: `ingest.range` says what becomes black and what white.

    full         all that the format can hold: 0 to 65,535. Two pictures of a set stay comparable, and a dark
                 one stays dark; a camera that fills 12 of 16 bits is stored nearly black
    min-max      the picture's own lowest and highest value
    percentile   its 0.1 and 99.9 percentile: a few dead or shining pixels don't count

Full is the default because it is the only one that invents nothing: no picture's brightness depends on what
else it shows. Where a picture uses less than a tenth of its range, `narrow` says so and the run counts it.
Floating-point and 32-bit values have no full range; with one of the other two they are taken too. One range
holds for all channels, so colours keep their hue. Not-a-numbers count as the lowest value.

Pillow cuts 16-bit colour to its high bytes. Its decoders can be told to take the low ones: two passes give
both. Where it has no such way (grey with alpha), the high bytes are all there is.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskmill.workers.run.ingest_settings import FULL, MIN_MAX

FULL_16_BIT = 65_535
NARROW = 0.1
"""A picture that uses a smaller part of its range is told of."""

PERCENTILES = (0.1, 99.9)

_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _BITS = 262, 258

_OTHER_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}
"""Pillow's names of 16-bit pixels -> what makes it take the bytes that it drops."""


class NoFullRange(ValueError):
    """Values of which nobody can say what black and white are."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture in 8 bits.

    Attributes:
        image: mode L or RGB.
        narrow: it uses less than a tenth of the range that its pixels can hold.
    """

    image: Image.Image
    narrow: bool


def is_deep_grey(image: Image.Image) -> bool:
    """Whether these are grey pixels of more than 8 bits. Ask before or after loading."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would cut this colour picture to the high bytes of 16. Ask before loading."""
    tiles = getattr(image, "tile", ())  # none of a picture that was made in memory
    return bool(tiles) and all(_rawmode(tile) in _OTHER_BYTES for tile in tiles)


def grey(image: Image.Image, wanted: str) -> Shown:
    """A deep grey picture in 8 bits.

    Args:
        image: loaded, as `is_deep_grey` knows it.
        wanted: a value of `ingest.range`.

    Raises:
        NoFullRange: values without a range, and the full one is wanted.
    """
    values_HW = np.asarray(image)
    has_range = image.mode.startswith("I;16") or image.format in ("PPM", "PNG")
    if wanted == FULL and not has_range:
        raise NoFullRange(f"pixels of mode {image.mode} have no full range")
    shown_HW, narrow = _scaled(values_HW, wanted, of_16_bit=has_range)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        shown_HW = 255 - shown_HW
    return Shown(Image.fromarray(shown_HW), narrow)


def colour(data: bytes, formats: tuple[str, ...], image: Image.Image, wanted: str) -> Shown:
    """A 16-bit colour picture in 8 bits.

    Args:
        data: the file.
        formats: as Pillow's `open` takes them.
        image: the picture as it was opened, not loaded yet: `is_deep_colour`. It is left loaded.
        wanted: a value of `ingest.range`.
    """
    again = Image.open(io.BytesIO(data), formats=formats)
    if (page := image.tell()) != again.tell():
        again.seek(page)
    again.tile = [tile._replace(args=_other_bytes(tile.args)) for tile in again.tile]
    image.load()
    again.load()
    values_HWC = np.asarray(image).astype(np.uint16) * 256 + np.asarray(again)
    shown_HWC, narrow = _scaled(values_HWC[..., :3], wanted, of_16_bit=True)
    if image.mode == "RGBA":
        alpha_HW1 = (values_HWC[..., 3:] >> 8).astype(np.uint8)
        shown_HWC = np.concatenate([shown_HWC, alpha_HW1], axis=2)
    shown = Image.fromarray(shown_HWC)
    if "icc_profile" in image.info:
        shown.info["icc_profile"] = image.info["icc_profile"]
    return Shown(shown, narrow)


def _scaled(
    values: npt.NDArray[np.generic], wanted: str, *, of_16_bit: bool
) -> tuple[npt.NDArray[np.uint8], bool]:
    """Values as 0 to 255 by the range that is wanted, and whether they use little of the full one."""
    if np.issubdtype(values.dtype, np.floating):
        finite = values[np.isfinite(values)]
        lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values, nan=lowest, posinf=highest, neginf=lowest)
    low, high = float(values.min()), float(values.max())
    narrow = of_16_bit and high > low and (high - low) < NARROW * FULL_16_BIT
    if wanted == FULL:
        whole = values.astype(np.uint32)
        return ((whole * 255 + FULL_16_BIT // 2) // FULL_16_BIT).astype(np.uint8), narrow

    if wanted != MIN_MAX:
        low, high = (float(value) for value in np.percentile(values.astype(np.float64), PERCENTILES))
    if high <= low:
        return np.zeros(values.shape, np.uint8), False
    shares = (values.astype(np.float64) - low) / (high - low)
    return np.clip(shares * 255 + 0.5, 0, 255).astype(np.uint8), False


def _rawmode(tile: object) -> str:
    args = getattr(tile, "args", None)
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def _other_bytes(args: object) -> tuple[Any, ...] | str:
    if isinstance(args, tuple):
        return (_OTHER_BYTES[args[0]], *args[1:])
    assert isinstance(args, str)
    return _OTHER_BYTES[args]
