"""An exported image's masks as one map; see pipeline/masks/layers.py.

A mask that others hide whole has no pixel in the map; whoever paints is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.masks.layers import painted
from maskmill.pipeline.rle import Rle
from maskmill.storage.errors import DamagedObject

if TYPE_CHECKING:
    from maskmill.workers.exports.samples import ExportImage

HIDDEN = "hidden"
"""Why a mask is left out of which no pixel shows."""


def map_of_masks(image: ExportImage, values: Sequence[int]) -> NDArray[np.uint32]:
    """A map of an image's masks, each in its value: uint32[height, width].

    Raises:
        maskmill.storage.errors.DamagedObject: run lengths that are none, or of another size.
    """
    info = image.record["image"]
    try:
        masks = [Rle.from_coco(row["segmentation"]) for row in image.record["annotations"]]
        return painted(masks, values, height=int(info["height"]), width=int(info["width"]))
    except ValueError as exc:
        raise DamagedObject(f"masks of {image.sample.key}: {exc}") from exc
