"""Islands, holes and containment of masks, found on run lengths instead of pixels.

A mask's runs are cut at column ends into pieces; pieces of neighbouring columns that touch, diagonally too,
are joined by union-find. Islands are the sets of pieces of ones, holes those of zeros (the reference counts
any region outside the mask as a hole, one at the image's border too). The cost grows with the pieces.

Source: segment_anything.utils.amg.remove_small_regions, which labels pixels with OpenCV, 8-connected.

What it does not know: which masks to clean, and what to do with duplicates that cleaning makes (automask.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.compiled import kernel, map_in_threads
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, from_run_lengths, run_lengths

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CleanMask:
    """A mask after small holes were filled, then small islands removed.

    `changed` is the reference's: true as soon as a region was below the minimum. `largest_island_px` (0 for
    an empty mask) below the same minimum means that every island was small: then the largest stayed.
    """

    rle: Rle
    changed: bool
    area_px: int
    box_xyxy: tuple[int, int, int, int]  # inclusive corners, zeros when empty
    largest_island_px: int


def remove_small_regions(rle: Rle, min_area_px: float, mode: Literal["holes", "islands"]) -> tuple[Rle, bool]:
    """Regions of fewer than min_area_px pixels filled ("holes") or removed ("islands").

    If every island is small, the largest stays (of equal ones, the first as OpenCV numbers them).

    Returns:
        the mask, and whether any region was small.

    Raises:
        ValueError: another mode, or a damaged mask.
    """
    if mode not in ("holes", "islands"):
        raise ValueError(f'mode is {mode!r}; give "holes" or "islands"')
    lengths, changed, _ = _without_small(run_lengths(rle), rle.height, float(min_area_px), mode == "holes")
    return (from_run_lengths(rle.height, rle.width, lengths), True) if changed else (rle, False)


def largest_island_px(rle: Rle) -> int:
    """The area of the largest 8-connected island, 0 for an empty mask."""
    return int(_without_small(run_lengths(rle), rle.height, 0.0, False)[2])


def clean(rles: Sequence[Rle], min_area_px: float, *, threads: int | None = None) -> list[CleanMask]:
    """Fills holes, then removes islands, below min_area_px, as the reference's postprocess_small_regions."""

    def job(rle: Rle) -> CleanMask:
        """Holes first: an island may be large by what it holds."""
        lengths, filled, _ = _without_small(run_lengths(rle), rle.height, float(min_area_px), True)
        lengths, removed, largest = _without_small(lengths, rle.height, float(min_area_px), False)
        result = from_run_lengths(rle.height, rle.width, lengths) if filled or removed else rle
        return CleanMask(result, filled or removed, area_px(result), box_xyxy(result), largest)

    return map_in_threads(job, rles, threads)


def parents(rles: Sequence[Rle], *, containment: float = 0.95) -> list[int | None]:
    """For each mask the smallest larger mask that holds at least `containment` of its area.

    Never a cycle: of two masks of equal area only the earlier one can be the other's parent.

    Args:
        rles: masks of one image.
        containment: a share of the child's area, over 0 and up to 1.

    Returns:
        for each mask an index into `rles`, or None.

    Raises:
        ValueError: masks of several sizes, or a containment out of range.
    """
    if not 0 < containment <= 1:
        raise ValueError(f"containment is {containment}; it must be over 0 and at most 1")
    _same_size(rles)
    if not rles:
        return []
    starts, stops, offsets = _joined_runs(rles)
    boxes = np.array([box_xyxy(rle) for rle in rles], np.int64)
    areas = np.array([area_px(rle) for rle in rles], np.int64)
    order = np.argsort(areas, kind="stable")
    found = _parents(starts, stops, offsets, boxes, areas, order, containment)
    return [int(parent) if parent >= 0 else None for parent in found]


def _same_size(rles: Sequence[Rle]) -> None:
    sizes = {(rle.height, rle.width) for rle in rles}
    if len(sizes) > 1:
        raise ValueError(f"masks of one image have one size; these have {sorted(sizes)}")


def _joined_runs(rles: Sequence[Rle]) -> tuple[Ints, Ints, Ints]:
    """Starts and stops of all masks' runs of ones, and the offset of each mask's first run (one more)."""
    starts, stops, offsets = [], [], [0]
    for rle in rles:
        ends = np.cumsum(run_lengths(rle))
        starts.append(ends[:-1:2])
        stops.append(ends[1::2])
        offsets.append(offsets[-1] + len(stops[-1]))
    return np.concatenate(starts), np.concatenate(stops), np.array(offsets, np.int64)


@kernel
def _pieces(lengths: Ints, height: int, ones: int) -> Ints:
    """The runs of ones (or zeros) cut at column ends: rows (column, first row, row after the last)."""
    count = 0
    end = 0
    for i in range(lengths.size):
        start = end
        end += lengths[i]
        if i % 2 == ones and start < end:
            count += (end - 1) // height - start // height + 1

    # Write what was counted
    pieces = np.empty((count, 3), np.int64)
    count = 0
    end = 0
    for i in range(lengths.size):
        start = end
        end += lengths[i]
        while i % 2 == ones and start < end:
            x = start // height
            stop = min(end, (x + 1) * height)
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = x, start - x * height, stop - x * height
            count += 1
            start = stop
    return pieces


@kernel
def _root(parent: Ints, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _areas(pieces: Ints) -> tuple[Ints, Ints]:
    """For each piece its region (a piece's index), and at that index the region's area."""
    count = len(pieces)
    parent = np.arange(count)
    near, near_stop = 0, 0  # the column before: pieces from `near` that may still touch, up to near_stop
    column_start = 0
    for i in range(count):
        x, top, bottom = pieces[i]
        if i == 0 or x != pieces[i - 1, 0]:
            near = column_start if i > 0 and pieces[i - 1, 0] == x - 1 else i
            near_stop = i
            column_start = i
        while near < near_stop and pieces[near, 2] < top:
            near += 1
        k = near
        while k < near_stop and pieces[k, 1] <= bottom:
            a, b = _root(parent, i), _root(parent, k)
            parent[max(a, b)] = min(a, b)
            k += 1
    areas = np.zeros(count, np.int64)
    for i in range(count):
        parent[i] = _root(parent, i)
        areas[parent[i]] += pieces[i, 2] - pieces[i, 1]
    return parent, areas


@kernel
def _first_largest(pieces: Ints, region: Ints, areas: Ints) -> int:
    """The largest region; of equal ones OpenCV's first: the one of the first 2 x 2 block, row by row."""
    best, best_row, best_column = -1, 0, 0
    for i in range(len(pieces)):
        row, column = pieces[i, 1] // 2, pieces[i, 0] // 2
        area = areas[region[i]]
        if best < 0 or area > areas[best]:
            earlier = True
        else:
            earlier = area == areas[best] and (row < best_row or (row == best_row and column < best_column))
        if earlier:
            best, best_row, best_column = region[i], row, column
    return best


@kernel
def _runs_of(pieces: Ints, kept: Flags, height: int, total: int, ones: int) -> Ints:
    """Run lengths of a mask whose ones (or, with ones = 0, zeros) are the kept pieces."""
    lengths = np.empty(2 * len(pieces) + 3, np.int64)
    lengths[0] = 0  # an empty run of the other kind in front, dropped or needed below
    count, last = 1, 0
    for i in range(len(pieces)):
        if not kept[i]:
            continue
        start = pieces[i, 0] * height + pieces[i, 1]
        length = pieces[i, 2] - pieces[i, 1]
        if count > 1 and start == last:
            lengths[count - 1] += length
        else:
            lengths[count], lengths[count + 1] = start - last, length
            count += 2
        last = start + length
    if last < total or count == 1:
        lengths[count] = total - last
        count += 1
    if ones == 1:
        return lengths[1:count]
    return lengths[2:count] if lengths[1] == 0 else lengths[:count]


@kernel
def _without_small(lengths: Ints, height: int, min_area: float, holes: bool) -> tuple[Ints, bool, int]:
    """Run lengths without small regions, whether there were any, and the largest region's area."""
    ones = 0 if holes else 1
    pieces = _pieces(lengths, height, ones)
    region, areas = _areas(pieces)
    largest, small = 0, False
    for i in range(len(pieces)):
        largest = max(largest, areas[i])
        small |= region[i] == i and areas[i] < min_area
    if not small:
        return lengths, False, largest
    kept = np.empty(len(pieces), np.bool_)
    only = _first_largest(pieces, region, areas) if largest < min_area and not holes else -1
    for i in range(len(pieces)):
        kept[i] = areas[region[i]] >= min_area or region[i] == only
    return _runs_of(pieces, kept, height, lengths.sum(), ones), True, largest


@kernel
def _intersection(starts: Ints, stops: Ints, other_starts: Ints, other_stops: Ints) -> int:
    if len(starts) == 0 or len(other_starts) == 0:
        return 0
    shared = 0
    i = np.searchsorted(stops, other_starts[0])
    j = np.searchsorted(other_stops, starts[0])
    while i < len(starts) and j < len(other_starts):
        shared += max(0, min(stops[i], other_stops[j]) - max(starts[i], other_starts[j]))
        if stops[i] < other_stops[j]:
            i += 1
        else:
            j += 1
    return shared


@kernel
def _parents(
    starts: Ints, stops: Ints, offsets: Ints, boxes: Ints, areas: Ints, order: Ints, containment: float
) -> Ints:
    count = len(boxes)
    found = np.full(count, -1, np.int64)
    for rank in range(count):
        i = order[rank]
        need = containment * areas[i]
        # equal areas lie around `rank` by index: only earlier masks may be parents, so go back to their first
        first = rank
        while first > 0 and areas[order[first - 1]] == areas[i]:
            first -= 1
        for at in range(first, count):
            j = order[at]
            if areas[i] == 0 or (areas[j] == areas[i] and j >= i):
                continue
            wide = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) + 1
            high = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) + 1
            if wide <= 0 or high <= 0 or wide * high < need:
                continue
            a, b, c, d = offsets[i], offsets[i + 1], offsets[j], offsets[j + 1]
            if _intersection(starts[a:b], stops[a:b], starts[c:d], stops[c:d]) >= need:
                found[i] = j
                break
    return found
