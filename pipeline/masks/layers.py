"""Masks that overlap as one map, in which a pixel belongs to one of them: the smaller lies on the larger.

Of two masks of one area the later lies on the earlier.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.rle import Rle, decode


def painted(masks: Sequence[Rle], values: Sequence[int], *, height: int, width: int) -> NDArray[np.uint32]:
    """A map of masks, each in its value.

    Args:
        masks: of one image.
        values: of each, at least 1.
        height, width: of the image, in px.

    Returns:
        uint32[height, width]; 0 where no mask is.

    Raises:
        ValueError: a mask of another size, or run lengths that are none.
    """
    map_HW = np.zeros((height, width), np.uint32)
    shapes = [decode(mask) for mask in masks]
    wrong = next((one for one in shapes if one.shape != map_HW.shape), None)
    if wrong is not None:
        raise ValueError(f"a mask of {wrong.shape[1]}x{wrong.shape[0]} px in an image of {width}x{height} px")
    areas = [int(shape.sum()) for shape in shapes]
    for place in sorted(range(len(shapes)), key=lambda place: (-areas[place], place)):
        map_HW[shapes[place]] = values[place]
    return map_HW
