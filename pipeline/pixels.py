"""What an image is in this layer: uint8[H, W, 3], RGB; and which pixels stand for others at another size.

It knows no files (workers decode them) and no model's input (frame.py, decoder/resize.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


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


def nearest(given: int, wanted: int) -> npt.NDArray[np.int64]:
    """Which of `given` pixels along a side each of `wanted` is nearest to, as int64[wanted]."""
    return ((np.arange(wanted) + 0.5) * given / wanted).astype(np.int64)
