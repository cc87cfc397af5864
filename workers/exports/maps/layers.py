"""Masks that overlap as one map: the smaller lies on the larger.

A mask that others hide whole has no pixel in the map; whoever paints is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.errors import DamagedObject

HIDDEN = "hidden"
"""Why a mask is left out of which no pixel shows."""


def painted(
    rows: Sequence[Mapping[str, Any]], values: Sequence[int], *, height: int, width: int, key: str
) -> NDArray[np.uint32]:
    """A map of masks, each in its value.

    Args:
        rows: annotations of SA-1B's form.
        values: of each, at least 1.
        height, width: of the image, in px.
        key: of the image, for errors.

    Returns:
        uint32[height, width]; 0 where no mask is.

    Raises:
        maskmill.storage.errors.DamagedObject: run lengths that are none, or of another size.
    """
    map_HW = np.zeros((height, width), np.uint32)
    order = sorted(range(len(rows)), key=lambda place: (-int(rows[place]["area"]), rows[place]["id"]))
    for place in order:
        try:
            map_HW[decode(Rle.from_coco(rows[place]["segmentation"]))] = values[place]
        except (ValueError, IndexError) as exc:
            raise DamagedObject(f"masks of {key}: {exc}") from exc
    return map_HW
