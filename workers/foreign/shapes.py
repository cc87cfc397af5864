"""An annotation's shape as run lengths, every number checked before a C library sees it.

pycocotools draws what it is given: a polygon of 1e9 px ends the process, a ring of one point is a bare
`Exception`, one of two is taken for a box. So: numbers are finite and lie within a few times the image's
size, a ring has three points and an outline that can be drawn, run lengths add up, nothing is nested deeper
than the format says. A ring that isn't so is left out and the other rings stand; an annotation without a
good ring is left out whole.

Shape legend: K points of a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from maskmill.pipeline.pixels import nearest
from maskmill.pipeline.rle import MAX_PIXELS, Rle, area_px, from_run_lengths, run_lengths
from maskmill.workers.foreign.annotations import BadAnnotation, finite
from maskmill.workers.foreign.json_words import shown

FAR = 4
"""Coordinates may lie this many times the image's side away from it."""

MAX_OUTLINE_PX = 4_000_000
"""The longest outline that is drawn; pycocotools keeps some 80 bytes for each of its pixels."""

BOX_ALONE = "box_alone"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """A mask that an annotation says.

    Attributes:
        rle: of the annotated image's size; never empty.
        area_px: its pixels.
        bad_rings: rings of its polygon that were left out.
    """

    rle: Rle
    area_px: int
    bad_rings: int = 0


def shape_of(words: Mapping[str, Any], height: int, width: int, *, boxes: bool = True) -> Shape:
    """The mask of an annotation: polygons, run lengths or compressed ones; one with a box alone is its box.

    Args:
        words: of the annotation.
        height, width: of the annotated image in px.
        boxes: whether a box alone is a shape; true masks are not.

    Raises:
        BadAnnotation: `bad_polygon`, `bad_run_lengths`, `mask_of_another_size`, `bad_box`, `no_shape`,
            `box_alone`, or `empty_mask` where no pixel of the image is in it.
    """
    found, bad_rings = words.get("segmentation"), 0
    if isinstance(found, Mapping):
        rle = _of_runs(found, height, width)
    elif isinstance(found, list) and found:
        rle, bad_rings = _of_rings(found, height, width)
    elif found is not None and not isinstance(found, list):
        raise BadAnnotation("bad_polygon", f"its segmentation is {shown(found)}")
    elif words.get("bbox") is None:
        raise BadAnnotation("no_shape", "it has neither a segmentation nor a bbox")
    elif not boxes:
        raise BadAnnotation(BOX_ALONE, "it has a box alone, which is no true mask")
    else:
        x, y, box_width, box_height = box_xywh(words["bbox"], height, width)
        drawn = coco_mask.frPyObjects(np.array([[x, y, box_width, box_height]]), height, width)
        rle = Rle(height, width, drawn[0]["counts"])

    try:
        area = area_px(rle)
    except ValueError as exc:
        raise BadAnnotation("bad_run_lengths", str(exc)) from exc
    if not area:
        raise BadAnnotation("empty_mask", "no pixel of the image is in it")
    return Shape(rle, area, bad_rings)


def box_xywh(found: object, height: int | None, width: int | None) -> tuple[float, float, float, float]:
    """A box, checked: left, top, width and height in px.

    Args:
        found: what the file says.
        height, width: of the image in px; None where unknown: then only numbers are asked for.

    Raises:
        BadAnnotation: `bad_box`: not four numbers, no size, or far outside of the image.
    """
    numbers = [finite(value) for value in found] if isinstance(found, list) and len(found) == 4 else []
    x, y, box_width, box_height = (value for value in numbers) if len(numbers) == 4 else (None,) * 4
    if x is None or y is None or box_width is None or box_height is None:
        raise BadAnnotation("bad_box", "its bbox is not four numbers: x, y, width, height")
    if box_width <= 0 or box_height <= 0:
        raise BadAnnotation("bad_box", f"its bbox has sides of {box_width:g} and {box_height:g} px")
    corners = np.array([[x, y], [x + box_width, y + box_height]])
    if height is not None and width is not None and _far(corners, height, width):
        raise BadAnnotation("bad_box", f"its bbox lies far outside of {width} x {height} px")
    return x, y, box_width, box_height


def points_K2(found: object) -> Floats:
    """Points, checked: float64[K, 2] in px, K at least 1.

    Raises:
        BadAnnotation: `bad_points`.
    """
    flat = isinstance(found, list) and bool(found) and all(not isinstance(one, list) for one in found)
    pairs = [found[i : i + 2] for i in range(0, len(found), 2)] if flat and isinstance(found, list) else found
    rows = pairs if isinstance(pairs, list) else []
    numbers = [[finite(value) for value in row] for row in rows if isinstance(row, list) and len(row) == 2]
    if not numbers or len(numbers) < len(rows) or any(value is None for row in numbers for value in row):
        raise BadAnnotation("bad_points", "its point_coords are not pairs of numbers")
    return np.array(numbers, np.float64)


def fitted(rle: Rle, height: int, width: int) -> Rle:
    """A mask at another size by nearest pixels, read off its runs: no array of the mask's own size.

    Args:
        rle: a mask.
        height, width: wanted, in px.
    """
    if (rle.height, rle.width) == (height, width):
        return rle
    rows_H, cols_W = nearest(rle.height, height), nearest(rle.width, width)
    flat = (cols_W[:, None] * rle.height + rows_H).ravel()
    set_ = np.searchsorted(np.cumsum(run_lengths(rle)), flat, side="right") % 2 == 1

    toggles = np.flatnonzero(set_[1:] != set_[:-1]) + 1
    first = [0, 0] if set_[:1].any() else [0]
    return from_run_lengths(height, width, np.diff(np.concatenate([first, toggles, [set_.size]])))


def _of_runs(found: Mapping[str, Any], height: int, width: int) -> Rle:
    size = found.get("size")
    if not isinstance(size, list) or [finite(side) for side in size] != [height, width]:
        text = " x ".join(shown(side) for side in size[:2]) if isinstance(size, list) else shown(size)
        raise BadAnnotation("mask_of_another_size", f"its mask is {text}, its image {height} x {width}")
    counts = found.get("counts")
    if isinstance(counts, str):
        if not counts.isascii():
            raise BadAnnotation("bad_run_lengths", "its counts are no compressed run lengths")
        return Rle(height, width, counts.encode("ascii"))
    if not isinstance(counts, list):
        raise BadAnnotation("bad_run_lengths", f"its counts are {shown(counts)}")

    try:
        lengths = np.asarray(counts)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iuf" or not (np.abs(lengths) <= MAX_PIXELS).all():
            raise ValueError("its counts are not run lengths")
        if lengths.dtype.kind == "f" and (np.floor(lengths) != lengths).any():
            raise ValueError("its counts are not whole numbers")
        return from_run_lengths(height, width, lengths)
    except (ValueError, TypeError, OverflowError) as exc:
        raise BadAnnotation("bad_run_lengths", str(exc)) from exc


def _of_rings(found: Sequence[Any], height: int, width: int) -> tuple[Rle, int]:
    """The good rings as one mask, and how many are bad."""
    problems = [_problem(ring, height, width) for ring in found]
    good = [ring for ring, problem in zip(found, problems, strict=True) if problem is None]
    if not good:
        raise BadAnnotation("bad_polygon", f"its ring {problems[0]}")
    merged = coco_mask.merge(coco_mask.frPyObjects(good, height, width))
    return Rle(height, width, merged["counts"]), len(found) - len(good)


def _problem(ring: object, height: int, width: int) -> str | None:
    """What is wrong with a ring; None where nothing is."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        return f"is {shown(ring)}, not x, y of three points or more"
    try:
        xy_K2 = np.array(ring, np.float64).reshape(-1, 2) if all(map(_is_number, ring)) else None
    except OverflowError:
        xy_K2 = None
    if xy_K2 is None or not np.isfinite(xy_K2).all():
        return "has something that is no number"
    if _far(xy_K2, height, width):
        return f"lies far outside of {width} x {height} px"
    outline_px = np.abs(np.diff(xy_K2, axis=0, append=xy_K2[:1])).max(axis=1).sum()
    return None if outline_px <= MAX_OUTLINE_PX else f"has an outline of {outline_px:.0f} px"


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int


def _far(xy_K2: Floats, height: int, width: int) -> bool:
    most = np.array([width, height])
    return bool((xy_K2 < -FAR * most).any() or (xy_K2 > (1 + FAR) * most).any())
