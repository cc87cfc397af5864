"""What a colour profile does, whatever it is called: looked at by what becomes of a ramp of colours.

Profiles of cameras, phones and web services are named after sRGB and aren't, or are sRGB under a name of
their own ("c2", a vendor's). A profile is put to work on every step of grey and a grid of colours; where no
value moves by more than rounding, the picture is sRGB and its bytes can stay. The answer is kept by the
profile's bytes: most pictures of a source share one.

It does not know images or files. Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import functools
import io
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

Effect = Literal["none", "converts", "unusable"]

ROUNDING = 2
"""Levels of 255: what two makers' sRGB profiles differ by."""

_STEPS = (0, 16, 32, 64, 96, 128, 160, 192, 224, 240, 255)


@functools.lru_cache(maxsize=64)
def effect_of(profile: bytes, mode: str) -> Effect:
    """What a profile would change of pictures of this mode.

    Args:
        profile: ICC bytes.
        mode: "RGB", "L" or "CMYK".

    Returns:
        "none" where the picture is sRGB as it is, "unusable" where the bytes are no profile of such pictures.
    """
    ramp = _ramp(mode)
    try:
        shown = _through(ramp, profile)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "unusable"
    if mode == "CMYK":
        return "converts"
    moved = np.abs(np.asarray(ramp.convert("RGB")).astype(int) - np.asarray(shown).astype(int))
    return "none" if moved.max() <= ROUNDING else "converts"


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB: mode RGB, or L where it was.

    Args:
        image: of mode "RGB", "L" or "CMYK", for which `effect_of` says "converts".
        profile: ICC bytes.
    """
    if image.mode != "L":
        return _through(image, profile)
    shown = np.asarray(_through(_ramp("L"), profile))[0, :, 1]  # one number a level: a table does for all
    return image.point(shown.tolist())


def _through(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    shown = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
    assert shown is not None  # it is only when converting in place
    return shown


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _ramp(mode: str) -> Image.Image:
    """All greys in a row, and for colours a grid of every third of each channel beside."""
    greys_1W = np.arange(256, dtype=np.uint8)[None]
    if mode == "L":
        return Image.fromarray(greys_1W)
    grid_W3 = np.array([(r, g, b) for r in _STEPS for g in _STEPS for b in _STEPS], np.uint8)
    colours_1W3 = np.concatenate([np.repeat(greys_1W[0][:, None], 3, axis=1), grid_W3])[None]
    if mode == "CMYK":
        black_1W1 = np.zeros((1, colours_1W3.shape[1], 1), np.uint8)
        return Image.fromarray(np.concatenate([colours_1W3, black_1W1], axis=2), mode="CMYK")
    return Image.fromarray(colours_1W3)
