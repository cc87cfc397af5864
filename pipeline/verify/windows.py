"""Every mask in a window of its own: `SIDE` x `SIDE` samples over its box and a margin, whatever its size.

A nucleus of 20 px and a car of 400 px are then alike: an outline is a sample wide, a ring outside three.
Samples are looked up in the run lengths, so a mask costs its `SIDE`^2 samples and never its pixels; colours
are taken from a copy of the picture that is reduced until a pixel is about a sample.

Shape suffixes: N masks, S samples along a side, G = S * S, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.machine.compiled import kernel
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.rle import Ints
from maskmill.pipeline.verify.runs import Runs

SIDE = 32
MARGIN = 0.3
"""On each side, as a share of the box's."""
LEAST_MARGIN_PX = 3.0

Floats32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where the samples of N masks lie, and which are mask.

    Attributes:
        x_NS, y_NS: float64, px of the picture; beyond its border too.
        mask_NSS: bool, rows first.
        within_NSS: bool, samples that lie in the picture.
    """

    x_NS: npt.NDArray[np.float64]
    y_NS: npt.NDArray[np.float64]
    mask_NSS: Bools
    within_NSS: Bools


def windows(image: AnnotatedImage, runs: Runs) -> Windows:
    """One for each mask.

    Args:
        image: N masks, at least one.
        runs: its masks' own.
    """
    box_N4 = np.array([one.bbox_xywh for one in image.annotations], np.float64)
    x_NS = _samples(box_N4[:, 0], box_N4[:, 2] + 1)
    y_NS = _samples(box_N4[:, 1], box_N4[:, 3] + 1)
    inside_x, inside_y = (x_NS >= 0) & (x_NS < image.width), (y_NS >= 0) & (y_NS < image.height)
    within_NSS = inside_y[:, :, None] & inside_x[:, None, :]
    column_NS = np.clip(x_NS, 0, image.width - 1).astype(np.int64)
    row_NS = np.clip(y_NS, 0, image.height - 1).astype(np.int64)
    mask_NSS = np.zeros(within_NSS.shape, np.bool_)
    _look_up(runs.end_R, runs.first_N1, column_NS * image.height, row_NS, mask_NSS)
    return Windows(x_NS, y_NS, mask_NSS & within_NSS, within_NSS)


def _samples(start_N: npt.NDArray[np.float64], length_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    margin_N = np.maximum(MARGIN * length_N, LEAST_MARGIN_PX)
    share_S = (np.arange(SIDE) + 0.5) / SIDE
    found: npt.NDArray[np.float64] = (start_N - margin_N)[:, None] + (length_N + 2 * margin_N)[
        :, None
    ] * share_S
    return found


@kernel
def _look_up(end_R: Ints, first_N1: Ints, column_start_NS: Ints, row_NS: Ints, mask_NSS: Bools) -> None:
    """Whether the pixel of each sample lies in a run of ones; a column's samples come with rising rows."""
    for n in range(len(mask_NSS)):
        first = first_N1[n]
        ends = end_R[first : first_N1[n + 1]]
        for s in range(mask_NSS.shape[2]):
            run = np.searchsorted(ends, column_start_NS[n, s] + row_NS[n, 0], side="right")
            for row in range(mask_NSS.shape[1]):
                place = column_start_NS[n, s] + row_NS[n, row]
                while ends[run] <= place:
                    run += 1
                mask_NSS[n, row, s] = run % 2 == 1


def colours_at(pixels_HWC: Pixels, where: Windows) -> Floats32:
    """float32[N, S, S, 3], 0 to 1: the picture's colours at the samples; its border's beyond it.

    Args:
        pixels_HWC: of the picture.
        where: windows of its masks.
    """
    step_N = np.maximum(where.x_NS[:, 1] - where.x_NS[:, 0], where.y_NS[:, 1] - where.y_NS[:, 0])
    wanted_N = np.floor(np.log2(np.maximum(step_N, 1))).astype(int)
    levels = [pixels_HWC]
    while len(levels) <= wanted_N.max(initial=0) and min(levels[-1].shape[:2]) >= 2 * SIDE:
        levels.append(_halved(levels[-1]))
    level_N = np.minimum(wanted_N, len(levels) - 1)

    found = np.zeros((*where.mask_NSS.shape, 3), np.uint8)
    for level in np.unique(level_N):
        rows = np.flatnonzero(level_N == level)
        reduced = levels[level]
        y_KS = np.clip(where.y_NS[rows] / 2**level, 0, reduced.shape[0] - 1).astype(int)
        x_KS = np.clip(where.x_NS[rows] / 2**level, 0, reduced.shape[1] - 1).astype(int)
        found[rows] = reduced[y_KS[:, :, None], x_KS[:, None, :]]
    return found.astype(np.float32) / np.float32(255)


def _halved(pixels_HWC: Pixels) -> Pixels:
    """Means of two by two pixels; an odd last row or column is left out."""
    height, width = pixels_HWC.shape[0] // 2 * 2, pixels_HWC.shape[1] // 2 * 2
    rows = pixels_HWC[0:height:2, :width].astype(np.uint16) + pixels_HWC[1:height:2, :width]
    found: Pixels = ((rows[:, 0::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)
    return found
