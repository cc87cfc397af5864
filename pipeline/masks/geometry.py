"""Where prompts and crops lie: point grids, crop boxes, and the boxes that a crop cuts.

The numbers are the public generator's to the last digit (`segment_anything/utils/amg.py`), because a
point that moves by a rounding makes another mask.

Shape suffixes: P points, N boxes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.settings.masks import MaskSettings

EDGE_TOLERANCE_PX = 20.0
"""A box this near to a crop's border counts as cut by it."""

BoxXyxy = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Crop:
    """A part of an image that is segmented as if it were an image.

    Args:
        box_xyxy: left, top, right, bottom in px of the image, right and bottom exclusive.
        layer: 0 is the whole image; layer i is one of 2^i x 2^i crops.
    """

    box_xyxy: BoxXyxy
    layer: int

    @property
    def width(self) -> int:
        """In px."""
        return self.box_xyxy[2] - self.box_xyxy[0]

    @property
    def height(self) -> int:
        """In px."""
        return self.box_xyxy[3] - self.box_xyxy[1]


def point_grid(points_per_side: int) -> npt.NDArray[np.float64]:
    """Evenly spaced points, row by row.

    Args:
        points_per_side: at least 1.

    Returns:
        float64[P, 2] x, y in (0, 1) with P = points_per_side squared.
    """
    half_step = 1 / (2 * points_per_side)
    side = np.linspace(half_step, 1 - half_step, points_per_side)
    return np.stack([np.tile(side, points_per_side), np.repeat(side, points_per_side)], axis=-1)


def layer_grids(settings: MaskSettings) -> list[npt.NDArray[np.float64]]:
    """The points that the whole image and each crop layer are asked, as the settings have them.

    Args:
        settings: crop layer i has points_per_side / crop_points_downscale^i points a side.

    Returns:
        float64[P, 2] x, y in (0, 1) for each layer, the whole image's first.
    """
    sides = [
        int(settings.points_per_side / settings.crop_points_downscale**layer)
        for layer in range(settings.crop_layers + 1)
    ]
    return [point_grid(side) for side in sides]


def crop_boxes(height: int, width: int, layers: int, overlap: float) -> list[Crop]:
    """The whole image, then each layer's crops, column by column.

    Args:
        height: of the image in px.
        width: of the image in px.
        layers: crop layers beside the whole image.
        overlap: of the first layer's crops as a share of the shorter side; halved with each layer.

    Returns:
        1 + 4 + 16 ... crops. Crops of an image too small for its layers that would be empty are left out
        (the public code fails on them).
    """
    crops = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap_px = int(overlap * min(height, width) * (2 / per_side))
        crop_width = _crop_length(width, per_side, overlap_px)
        crop_height = _crop_length(height, per_side, overlap_px)
        for column, row in itertools.product(range(per_side), range(per_side)):
            x0, y0 = (crop_width - overlap_px) * column, (crop_height - overlap_px) * row
            if x0 < width and y0 < height:
                box_xyxy = (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))
                crops.append(Crop(box_xyxy, layer))
    return crops


def _crop_length(length: int, per_side: int, overlap_px: int) -> int:
    return math.ceil((overlap_px * (per_side - 1) + length) / per_side)


def cut_by_crop(
    box_xyxy_N4: npt.NDArray[np.int64], crop: Crop, *, height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Which boxes reach a crop's border that is not also the image's: their masks are likely cut.

    Args:
        box_xyxy_N4: int64[N, 4] in px of the image, inclusive corners.
        crop: that the masks were found in.
        height, width: of the image in px.

    Returns:
        bool[N].
    """
    near_crop = np.abs(box_xyxy_N4 - np.array(crop.box_xyxy)) <= EDGE_TOLERANCE_PX
    near_image = np.abs(box_xyxy_N4 - np.array([0, 0, width, height])) <= EDGE_TOLERANCE_PX
    cut: npt.NDArray[np.bool_] = (near_crop & ~near_image).any(axis=1)
    return cut
