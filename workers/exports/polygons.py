"""A mask as one polygon, for formats that know no run lengths.

How it works: rings are traced through the centres of the mask's own border pixels, round every island and
round every hole; filling them by the even-odd rule with their border drawn (as OpenCV's `fillPoly` does)
gives the mask back, pixel for pixel. Formats that take one polygon per object get the rings joined: from
each ring to the nearest point of what is joined already and back, which costs a line of one pixel between
two islands.

Formats of several polygons per object (COCO, LVIS) get one for each island along the edges of its pixels, its
holes joined in: pycocotools counts crossings, so a line there and back is nothing, and the mask comes back
exactly.

What it does not keep, of the first kind: corners within `tolerance_px` of the simplified line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from skimage.measure import approximate_polygon, find_contours

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


def rings_of(mask_HW: Mask, *, tolerance_px: float = 0.0) -> list[Points]:
    """The borders of a mask's islands and holes.

    Args:
        mask_HW: bool[H, W].
        tolerance_px: how far a left-out corner may be from the line; 0 leaves out only what lies on it.

    Returns:
        float64[N, 2] each: x, y of pixel centres (the first pixel is 0, 0), the first point not repeated;
        none for an empty mask.
    """
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    crop_HW = np.pad(mask_HW[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    origin_xy = np.array([left - 1, top - 1], np.float64)
    contours = find_contours(crop_HW.astype(np.float64), 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
    rings = [_inside(contour, crop_HW) + origin_xy for contour in contours]
    return [_simple(ring, tolerance_px) for ring in sorted(rings, key=len, reverse=True)]


def outlines_of(mask_HW: Mask) -> list[Points]:
    """A mask as COCO's polygons: one for each island, its holes joined to it.

    Args:
        mask_HW: bool[H, W].

    Returns:
        float64[N, 2] each, N at least 4: x, y of the edges of pixels (the first pixel's are 0 and 1).
    """
    islands_HW, num_islands = label(mask_HW, structure=np.ones((3, 3)))
    outlines = []
    for place, (rows, columns) in enumerate(find_objects(islands_HW, num_islands), 1):
        crop_HW = np.pad(islands_HW[rows, columns] == place, 1)
        contours = find_contours(crop_HW.astype(np.float64), 0.5, fully_connected="high")  # type: ignore[no-untyped-call]
        origin_xy = np.array([columns.start, rows.start]) - 0.5  # of the border's pixel centre
        rings = [contour[:-1, ::-1] + origin_xy for contour in sorted(contours, key=len, reverse=True)]
        outlines.append(joined([_simple(ring, 0.0) for ring in rings]))
    return outlines


def joined(rings: list[Points]) -> Points:
    """Rings as one polygon, joined where they are nearest: float64[N, 2]; of no ring, no points."""
    if not rings:
        return np.zeros((0, 2))
    whole = rings[0]
    for ring in rings[1:]:
        distances = ((whole[:, None, :] - ring[None, :, :]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        tour = np.roll(ring, -int(there), axis=0)
        whole = np.concatenate([whole[: here + 1], tour, tour[:1], whole[here:]])
    return whole


def _inside(contour_yx: Points, mask_HW: Mask) -> Points:
    """The mask's pixel beside each point of a contour, which runs half-way between in and out; x, y."""
    low_yx, high_yx = np.floor(contour_yx).astype(np.int64), np.ceil(contour_yx).astype(np.int64)
    low_is_in = mask_HW[low_yx[:, 0], low_yx[:, 1]]
    pixels_yx = np.where(low_is_in[:, None], low_yx, high_yx)[:-1]
    moved = np.any(pixels_yx != np.roll(pixels_yx, 1, axis=0), axis=1)
    kept: NDArray[np.int64] = pixels_yx[moved] if moved.any() else pixels_yx[:1]
    return kept[:, ::-1].astype(np.float64)


def _simple(ring_xy: Points, tolerance_px: float) -> Points:
    """Without the points on the line between their neighbours; at least three points, repeated if need be."""
    if len(ring_xy) > 3:
        corner = int(np.lexsort((ring_xy[:, 1], ring_xy[:, 0]))[0])  # where the line starts, a point is kept
        ring_xy = np.roll(ring_xy, -corner, axis=0)
        closed = np.concatenate([ring_xy, ring_xy[:1]])
        simple: Points = approximate_polygon(closed, max(tolerance_px, 1e-9))[:-1]  # type: ignore[no-untyped-call]
        ring_xy = simple if len(simple) >= 2 else ring_xy
    return ring_xy if len(ring_xy) >= 3 else np.concatenate([ring_xy, ring_xy[:1], ring_xy[:1]])[:3]
