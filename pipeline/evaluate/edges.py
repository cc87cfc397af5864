"""Edges from masks, and BSDS500's figures for them: ODS, OIS, AP and R50.

Edges by SAM's recipe: every point of a 16x16 grid gives three masks, none filtered but by box NMS; Sobel over
each mask's probability map, kept where it touches the mask's outer boundary; the maximum over masks,
stretched to 0..1, thinned by non-maximum suppression. Plain Sobel and Canny are beside it, to compare.

Figures by BSDS's recipe: at each threshold the edge map is thinned and its pixels are matched one to one with
each annotator's within 0.75 % of the diagonal; precision counts pixels matched by any annotator, recall
all annotators' pixels. ODS is the best F at one threshold for all pictures, OIS at each picture's own, AP
the area under precision over recall, R50 the recall at a precision of 50 %. The benchmark's own code matches
by an approximate least-cost assignment; here it is the largest matching that exists, so a count may be higher
by a pixel here and there.

Source: Kirillov et al., Segment Anything (2023), section 7.2 and appendix D.2; Arbelaez et al., Contour
Detection and Hierarchical Image Segmentation (2011), section 3, and its `correspondPixels`, `edgesEvalImg`.

Shapes: H x W pixels, T thresholds, N masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.feature import canny
from skimage.filters import sobel_h, sobel_v
from skimage.morphology import thin

from maskmill.pipeline.evaluate.truth import Bools, Floats, full_size
from maskmill.pipeline.masks.measure import suppress
from maskmill.pipeline.segmenters.base import Segmenter, point_prompts

GRID = 16
BOX_NMS = 0.7
MAX_DISTANCE = 0.0075  # of the diagonal
THRESHOLDS = 99
PROMPTS_AT_ONCE = 16
OUTLINE_PX = 4


@dataclass(frozen=True, eq=False)
class EdgeCounts:
    """One picture's counts at every threshold.

    Attributes:
        matched_T, drawn_T: edge pixels matched by any annotator, and all of them.
        found_T, wanted_T: annotators' pixels matched, and all of them, summed over annotators.
    """

    matched_T: NDArray[np.int64]
    drawn_T: NDArray[np.int64]
    found_T: NDArray[np.int64]
    wanted_T: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EdgeFigures:
    """BSDS's figures, and the curve they come from.

    Attributes:
        ods, ois, ap, r50: 0 to 1.
        precision_T, recall_T: at each threshold, over all pictures.
    """

    ods: float
    ois: float
    ap: float
    r50: float
    precision_T: Floats
    recall_T: Floats


@torch.inference_mode()
def mask_edges(segmenter: Segmenter, image: NDArray[np.uint8], *, grid: int = GRID) -> Floats:
    """Edge strength by SAM's recipe: float64[H, W], 0 to 1, thinned.

    Args:
        segmenter: the model.
        image: uint8[H, W, 3].
        grid: points along each side.
    """
    height, width = image.shape[:2]
    places = (np.arange(grid) + 0.5) / grid
    points = np.stack(np.meshgrid(places * width, places * height), axis=-1).reshape(-1, 2)
    held = segmenter.prompt(segmenter.embed([image])[0])

    # Every mask of every point, as far as its outline reaches
    boxes, scores, crops = [], [], []
    for start in range(0, len(points), PROMPTS_AT_ONCE):
        got = held.predict(point_prompts(points[start : start + PROMPTS_AT_ONCE]))
        keep = torch.ones_like(got.predicted_iou_PM, dtype=torch.bool)
        logits = full_size(got.masks(keep).float(), held.embedding)
        for logits_HW, score in zip(
            logits.cpu().numpy(), got.predicted_iou_PM.flatten().tolist(), strict=True
        ):
            mask_HW = logits_HW > segmenter.mask_threshold
            if mask_HW.any():
                boxes.append(_box(mask_HW))
                scores.append(score)
                crops.append(logits_HW[_around(boxes[-1])].copy())

    if not boxes:
        return np.zeros((height, width))

    # The strongest of what suppression leaves
    kept = suppress(np.array(boxes), np.array(scores, np.float32), max_iou=BOX_NMS)
    strongest = np.zeros((height, width), np.float32)
    for i in kept:
        place = _around(boxes[i])
        strength = _mask_strength(crops[i], crops[i] > segmenter.mask_threshold)
        strongest[place] = np.maximum(strongest[place], strength)
    return edge_nms(_stretched(strongest))


def sobel_edges(image: NDArray[np.uint8]) -> Floats:
    """Sobel's gradient on grey, stretched to 0..1 and thinned."""
    grey = image.astype(np.float64).mean(axis=2) / 255
    return edge_nms(_stretched(_sobel(grey)))


def canny_edges(image: NDArray[np.uint8], sigmas: Sequence[float] = (1, 1.5, 2, 3, 4)) -> Floats:
    """Canny at several scales: each pixel's strength is the share of scales that call it an edge."""
    grey = image.astype(np.float64).mean(axis=2) / 255
    votes = [canny(grey, sigma=sigma).astype(np.float64) for sigma in sigmas]  # type: ignore[no-untyped-call]
    strength: Floats = np.mean(votes, axis=0)
    return strength


def _mask_strength(logits_HW: NDArray[np.float32], mask_HW: Bools) -> NDArray[np.float32]:
    """Sobel on the probability map, 0 where it doesn't touch the outer boundary of the mask."""
    probability = 1 / (1 + np.exp(-logits_HW.astype(np.float64)))
    outer = ndimage.binary_dilation(mask_HW, iterations=2) & ~ndimage.binary_erosion(mask_HW)
    strength: NDArray[np.float32] = (_sobel(probability) * outer).astype(np.float32)
    return strength


def _sobel(plane_HW: Floats) -> Floats:
    strength: Floats = np.hypot(sobel_h(plane_HW), sobel_v(plane_HW))  # type: ignore[no-untyped-call]
    return strength


def _stretched(plane_HW: NDArray[np.floating]) -> Floats:
    low, high = float(plane_HW.min()), float(plane_HW.max())
    return (plane_HW.astype(np.float64) - low) / (high - low) if high > low else np.zeros(plane_HW.shape)


def edge_nms(strength_HW: Floats) -> Floats:
    """Keeps pixels that no neighbour across the edge exceeds; others are 0."""
    smooth = ndimage.gaussian_filter(strength_HW, 1.0)
    across_y, across_x = np.gradient(smooth)
    # The gradient vanishes on a ridge: the direction of strongest bending tells across from along
    bend_yy, bend_xx = np.gradient(across_y, axis=0), np.gradient(across_x, axis=1)
    bend_xy = np.gradient(across_x, axis=0)
    angle = 0.5 * np.arctan2(2 * bend_xy, bend_xx - bend_yy)
    step_x, step_y = np.cos(angle), np.sin(angle)
    along_first = bend_xx * step_x**2 + 2 * bend_xy * step_x * step_y + bend_yy * step_y**2
    along_other = bend_xx * step_y**2 - 2 * bend_xy * step_x * step_y + bend_yy * step_x**2
    swap = np.abs(along_other) > np.abs(along_first)
    step_x, step_y = np.where(swap, -step_y, step_x), np.where(swap, step_x, step_y)
    ys, xs = np.mgrid[: strength_HW.shape[0], : strength_HW.shape[1]]
    keep = strength_HW > 0
    for sign in (-1, 1):
        beside = ndimage.map_coordinates(
            smooth, [ys + sign * step_y, xs + sign * step_x], order=1, mode="nearest"
        )
        keep &= smooth >= beside - 1e-12
    return np.where(keep, strength_HW, 0.0)


def _box(mask_HW: Bools) -> tuple[int, int, int, int]:
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]), int(rows[-1])


def _around(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of a box with what its outline's strength is made of: two pixels, and a filter's."""
    left, top, right, bottom = box
    return (
        slice(max(0, top - OUTLINE_PX), bottom + 1 + OUTLINE_PX),
        slice(max(0, left - OUTLINE_PX), right + 1 + OUTLINE_PX),
    )


def match_pixels(first_HW: Bools, second_HW: Bools, max_distance_px: float) -> tuple[Bools, Bools]:
    """The largest one-to-one matching of two sets of pixels no further apart than a distance.

    Args:
        first_HW, second_HW: bool[H, W].
        max_distance_px: centre to centre, inclusive.

    Returns:
        Which pixels of the first and of the second are matched: bool[H, W] each.
    """
    matched_first, matched_second = np.zeros_like(first_HW), np.zeros_like(second_HW)
    one, two = np.argwhere(first_HW), np.argwhere(second_HW)
    if not len(one) or not len(two):
        return matched_first, matched_second
    partner = maximum_bipartite_matching(_near(one, two, first_HW.shape, max_distance_px), "column")
    rows = np.flatnonzero(partner >= 0)
    matched_first[tuple(one[rows].T)] = True
    matched_second[tuple(two[partner[rows]].T)] = True
    return matched_first, matched_second


def _near(
    one: NDArray[np.int64], two: NDArray[np.int64], size: tuple[int, ...], max_distance_px: float
) -> csr_matrix:
    """Which pixels lie within reach of which: a row for each of the first, second ones in reading order."""
    reach_px = int(max_distance_px + 1e-9)
    disc = np.mgrid[-reach_px : reach_px + 1, -reach_px : reach_px + 1].reshape(2, -1)
    dy, dx = disc[:, (disc**2).sum(axis=0) <= (max_distance_px + 1e-9) ** 2] + reach_px

    # The second ones' numbers on the picture with a rim, read at every place of each first one's disc
    number_HW = np.full((size[0] + 2 * reach_px, size[1] + 2 * reach_px), -1, np.int32)
    number_HW[tuple((two + reach_px).T)] = np.arange(len(two))
    found = number_HW[one[:, :1] + dy, one[:, 1:] + dx]

    there = found >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return csr_matrix((np.ones(starts[-1], np.int8), found[there], starts), shape=(len(one), len(two)))


def count_edges(
    strength_HW: Floats,
    annotators: Sequence[Bools],
    *,
    thresholds: int = THRESHOLDS,
    max_distance: float = MAX_DISTANCE,
) -> EdgeCounts:
    """Holds an edge map against every annotator's at evenly spaced thresholds.

    Args:
        strength_HW: float64[H, W], 0 to 1.
        annotators: bool[H, W] each, at least one.
        thresholds: how many, in (0, 1).
        max_distance: as a share of the picture's diagonal.

    Raises:
        ValueError: no annotator, or maps of different sizes.
    """
    if not annotators or any(one.shape != strength_HW.shape for one in annotators):
        raise ValueError(
            f"an edge map of {strength_HW.shape} against annotators' of {[one.shape for one in annotators]}: "
            "give at least one, of its size"
        )
    reach_px = max_distance * float(np.hypot(*strength_HW.shape))
    counts = np.zeros((4, thresholds), np.int64)
    before_HW = None
    for t in range(thresholds):
        above_HW = strength_HW >= (t + 1) / (thresholds + 1)
        if before_HW is not None and np.array_equal(above_HW, before_HW):
            counts[:, t] = counts[:, t - 1]
            continue
        before_HW, drawn_HW = above_HW, thin(above_HW)  # type: ignore[no-untyped-call]
        matched_HW = np.zeros_like(drawn_HW)
        for truth_HW in annotators:
            ours, theirs = match_pixels(drawn_HW, truth_HW, reach_px)
            matched_HW |= ours
            counts[2, t] += theirs.sum()
            counts[3, t] += truth_HW.sum()
        counts[0, t], counts[1, t] = matched_HW.sum(), drawn_HW.sum()
    return EdgeCounts(*counts)


def edge_figures(pictures: Iterable[EdgeCounts]) -> EdgeFigures:
    """BSDS's figures over pictures.

    Raises:
        ValueError: no picture.
    """
    each = list(pictures)
    if not each:
        raise ValueError("no picture was given; there are no edges to measure")
    total = EdgeCounts(
        *(
            np.sum([getattr(one, name) for one in each], axis=0)
            for name in ("matched_T", "drawn_T", "found_T", "wanted_T")
        )
    )
    precision_T, recall_T, f_T = _curve(total)
    best = [int(np.argmax(_curve(one)[2])) for one in each]
    own = EdgeCounts(
        *(
            np.array([sum(int(getattr(one, name)[t]) for one, t in zip(each, best, strict=True))])
            for name in ("matched_T", "drawn_T", "found_T", "wanted_T")
        )
    )
    order = np.argsort(recall_T, kind="stable")
    recall, precision = recall_T[order], precision_T[order]
    recall, first = np.unique(recall, return_index=True)
    precision = np.maximum.reduceat(precision, first) if len(first) else precision
    # as edgesEval: interpolated at every percent of recall, 0 beyond what was reached
    at = np.interp(np.linspace(0, 1, 101), recall, precision, left=np.nan, right=0.0)
    at = np.where(np.isnan(at), precision[0] if len(precision) else 0.0, at)
    enough = recall_T[precision_T >= 0.5]
    return EdgeFigures(
        ods=float(f_T.max()),
        ois=float(_curve(own)[2][0]),
        ap=float(at.mean()),
        r50=float(enough.max()) if len(enough) else 0.0,
        precision_T=precision_T,
        recall_T=recall_T,
    )


def _curve(counts: EdgeCounts) -> tuple[Floats, Floats, Floats]:
    precision = counts.matched_T / np.maximum(counts.drawn_T, 1)
    recall = counts.found_T / np.maximum(counts.wanted_T, 1)
    both = precision + recall
    return precision, recall, 2 * precision * recall / np.where(both > 0, both, 1)


METHODS: dict[str, Callable[[NDArray[np.uint8]], Floats]] = {"sobel": sobel_edges, "canny": canny_edges}
"""Edge detectors without a model."""
