"""Masks as SVG paths: small, sharp at any size, and each one can be pointed at.

How it works: a mask is cut to its box, reduced by area to the size of the shown picture, traced at one half
and simplified to within a pixel of that picture. Coordinates are whole numbers of half pixels, relative
to the point before, so a mask costs some hundred bytes.

What it does not keep: islands and holes smaller than about a pixel of the shown picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.rle import decode

UNITS_PER_PX = 2
"""Path units in one pixel of the shown picture."""

TOLERANCE_PX = 0.8


def mask_path(annotation: Annotation, scale: float) -> str:
    """The `d` of an SVG path of one mask, holes included; fill it with `fill-rule="evenodd"`.

    Args:
        annotation: the mask, in pixels of its image.
        scale: shown pixels per pixel of the image, at most 1 to be useful.

    Returns:
        Path data in units of 1/`UNITS_PER_PX` shown pixels; empty for an empty mask.
    """
    mask_HW = decode(annotation.segmentation)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if rows.size == 0:
        return ""
    top, left = int(rows[0]), int(columns[0])
    crop_HW = mask_HW[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    height, width = crop_HW.shape
    small = (max(1, math.ceil(width * scale)), max(1, math.ceil(height * scale)))
    cover_HW = np.asarray(
        Image.fromarray(crop_HW.astype(np.uint8) * 255).resize(small, Image.Resampling.BOX), dtype=np.float32
    )
    threshold = min(127.5, float(cover_HW.max()) / 2)  # a thread thinner than a pixel is still shown
    step_xy = (width * scale / small[0], height * scale / small[1])
    parts = []
    for contour in find_contours(np.pad(cover_HW, 1), threshold):  # type: ignore[no-untyped-call]
        parts.append(_path_of(_polygon(contour, step_xy, (left * scale, top * scale))))
    return "".join(parts)


def _polygon(
    contour_yx: NDArray[np.float64], step_xy: Sequence[float], origin_xy: Sequence[float]
) -> NDArray[np.int64]:
    """A closed contour of the padded crop as simplified whole path units, its last point left out."""
    # Pixel centres of the padded crop -> edges of the crop -> the shown picture
    points_xy = (contour_yx[:, ::-1] - 0.5) * np.asarray(step_xy) + np.asarray(origin_xy)
    simple_xy = approximate_polygon(points_xy, TOLERANCE_PX)  # type: ignore[no-untyped-call]
    units_xy = _whole_units(simple_xy)
    return units_xy if len(units_xy) >= 3 else _bounds(points_xy)  # a thread would vanish


def _whole_units(points_xy: NDArray[np.float64]) -> NDArray[np.int64]:
    units_xy = np.round(points_xy * UNITS_PER_PX).astype(np.int64)
    moved = np.any(units_xy[1:] != units_xy[:-1], axis=1)
    return units_xy[:-1][moved]


def _bounds(points_xy: NDArray[np.float64]) -> NDArray[np.int64]:
    """The smallest box of whole units around the points, as a closed path of at least one unit a side."""
    left, top = np.floor(points_xy.min(axis=0) * UNITS_PER_PX).astype(np.int64)
    right, bottom = np.ceil(points_xy.max(axis=0) * UNITS_PER_PX).astype(np.int64)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _path_of(points_xy: NDArray[np.int64]) -> str:
    steps_xy = np.diff(points_xy, axis=0)
    first = f"M{points_xy[0, 0]} {points_xy[0, 1]}l"
    return first + " ".join(f"{dx} {dy}" for dx, dy in steps_xy).replace(" -", "-") + "z"
