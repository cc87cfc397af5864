"""A JPEG that lacks nothing but its end marker, told apart from one that was cut.

Cameras that lose power, and some writers, leave the last two bytes out; every decoder shows the whole
picture. A decoder also shows a picture of one that was cut, with grey below. So bytes are added that would be
read as pixels if any were wanted: where several different ones change nothing, nothing was missing. A
progressive JPEG may lack whole passes without it showing, and counts as cut.

It does not know: other formats.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

END = b"\xff\xd9"
_NO_MATTER_WHICH = (b"\x00" * 64, b"\x55" * 64, b"\xaa" * 64, b"\xee" * 64)


def completed(data: bytes, cut: OSError) -> Image.Image:
    """The loaded picture of a JPEG whose end marker is missing.

    Args:
        data: the file, of which Pillow says that it is truncated.
        cut: what Pillow raised.

    Raises:
        OSError: `cut`, where more is missing than the marker.
    """
    first = Image.open(io.BytesIO(data + END), formats=("JPEG",))
    if first.info.get("progressive"):
        raise cut
    first.load()
    pixels = np.asarray(first)
    for filler in _NO_MATTER_WHICH:
        other = Image.open(io.BytesIO(data + filler + END), formats=("JPEG",))
        if not np.array_equal(np.asarray(other), pixels):
            raise cut
    return first
