"""PIL's antialiased bilinear resize to the byte, without PIL's own copy of the photo.

PIL keeps an RGB image in 4 bytes a pixel: 65 MB beside a photo of 3300 x 4950. Its resize goes across first,
rounds to bytes, then goes down; each pass treats a row (a column) on its own. So bands of rows, then bands of
columns, give the same bytes, and only bands are ever copied.

What it does not do: other filters, other than 8-bit RGB.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskmill.pipeline.machine.compiled import map_in_threads

_BAND_PIXELS = 2**18

Pixels = npt.NDArray[np.uint8]


def resize(image_HW3: Pixels, *, height: int, width: int, threads: int | None = None) -> Pixels:
    """`PIL.Image.resize((width, height), BILINEAR)`.

    Args:
        image_HW3: uint8[H, W, 3], not empty; any strides.
        height, width: in px, at least 1.
        threads: at most so many; None for all of the machine's.

    Returns:
        uint8[height, width, 3].
    """
    old_height, old_width = image_HW3.shape[:2]
    across = np.empty((old_height, width, 3), np.uint8)

    def go_across(rows: slice) -> None:
        """A band of rows to the wanted width."""
        band = image_HW3[rows]
        across[rows] = _resized(band, width, len(band))

    map_in_threads(go_across, _bands(old_height, old_width), threads)
    down = np.empty((height, width, 3), np.uint8)

    def go_down(columns: slice) -> None:
        """A band of columns to the wanted height."""
        band = across[:, columns]
        down[:, columns] = _resized(band, band.shape[1], height)

    map_in_threads(go_down, _bands(width, old_height), threads)
    return down


def _bands(count: int, length: int) -> list[slice]:
    """`count` lines of `length` pixels each, cut into bands."""
    step = max(1, _BAND_PIXELS // length)
    return [slice(at, at + step) for at in range(0, count, step)]


def _resized(band: Pixels, width: int, height: int) -> Pixels:
    picture = Image.fromarray(np.ascontiguousarray(band))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
