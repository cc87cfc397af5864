"""What an image is in this layer: uint8[H, W, 3], RGB; and masks at another size.

It knows no files (workers decode them) and no model's input (frame.py, decoder/resize.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


def check_rgb(pixels_HWC: Pixels) -> None:
    """Refuses what is no image.

    Args:
        pixels_HWC: should be uint8[H, W, 3] of at least a pixel.

    Raises:
        ValueError: another shape or type.
    """
    is_rgb = pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 3 and pixels_HWC.dtype == np.uint8
    if not is_rgb or 0 in pixels_HWC.shape:
        raise ValueError(
            f"an image must be uint8[height, width, 3] RGB, got {pixels_HWC.dtype}{list(pixels_HWC.shape)}"
        )


def resize_nearest(mask_HW: Bools, height: int, width: int) -> Bools:
    """A mask at another size: each pixel says what the nearest one said; itself where it fits.

    Args:
        mask_HW: bool[H, W].
        height, width: wanted, in px.
    """
    if mask_HW.shape == (height, width):
        return mask_HW
    return mask_HW[np.ix_(nearest(mask_HW.shape[0], height), nearest(mask_HW.shape[1], width))]


def nearest(given: int, wanted: int) -> npt.NDArray[np.int64]:
    """Which of `given` pixels along a side each of `wanted` is nearest to, as int64[wanted]."""
    return ((np.arange(wanted) + 0.5) * given / wanted).astype(np.int64)
