"""Is anything missing? What share of a picture's objects has a mask, and where something may lie without one.

    (1)  explained = 1 - prod over masks (1 - covered share of the cell * probability that the mask is right)
    (2)  unexplained = (1 - explained) * edge strength of the cell, and at least the predicted IoU of a
         candidate that was passed over (masks/votes.py), where its box lies
    (3)  share found = sigmoid(w . x), x a few numbers of the whole picture: `SEEN`

An even wall or sky is no object: what isn't covered counts by its edges. What it does not know: objects
that look like their surroundings, and how finely somebody wants a picture to be cut into objects; it was
fitted on how finely the labels of its training pictures cut them.

Shape suffixes: N masks, R x C cells, P pictures, S numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import minimize

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.verify.coverage import CellGrid, Cover, Floats32
from maskmill.pipeline.verify.features import edge_strength, picture_cells
from maskmill.pipeline.verify.runs import Runs

SEEN = (
    "unexplained_edges",
    "open_edges",
    "outlined_edges",
    "found_of_all",
    "mean_right",
    "unanswered",
    "texture",
)
"""Shares and means, no counts: how many masks a picture has says something else in every kind of pictures.
`unanswered`: of the prompts that lie in masks' boxes, the share that found nothing; unknown without votes.
`texture`: the logarithm of the mean change from pixel to pixel, along rows."""
TEXTURE_ROWS = 256
STRONG = 1.5
"""Times the picture's average: an edge that something has."""
MOST = 3.0
"""Edges count up to this times the average."""
RIDGE = 0.02


@dataclass(frozen=True, eq=False)
class Missing:
    """What of a picture is unexplained.

    Attributes:
        seen_S: the numbers named `SEEN`; NaN where one is unknown.
        unexplained_RC: 0 where all is explained, towards 1 where something lies without a mask.
    """

    seen_S: Floats32
    unexplained_RC: Floats32


def look(
    image: AnnotatedImage, right_N: Floats32, pixels_HWC: Pixels, *, cover: Cover | None = None
) -> Missing:
    """What of a picture its masks leave unexplained.

    Args:
        image: N masks, with what was passed over where that was kept.
        right_N: probability that each is right.
        pixels_HWC: of the picture.
        cover: of these masks, where it is at hand.

    Raises:
        ValueError: damaged run lengths.
    """
    cover = Cover.of(Runs.of(image)) if cover is None else cover
    grid = cover.grid
    edge_RC = np.minimum(edge_strength(picture_cells(pixels_HWC, grid)), MOST) / np.float32(MOST)

    # (1), and the outlines' share of the edges
    open_RC, outline_RC = cover.explained(right_N)
    near_RC = ndimage.maximum_filter(outline_RC, 3)

    # (2)
    over_RC = np.zeros_like(open_RC)
    for one in image.passed_over or ():
        cells = _cells(one.bbox_xywh, grid)
        over_RC[cells] = np.maximum(over_RC[cells], one.predicted_iou)
    unexplained_RC = np.maximum(open_RC * edge_RC, open_RC * over_RC).astype(np.float32)

    # What the picture as a whole shows
    strong_RC = (open_RC > 0.5) & (edge_RC * MOST > STRONG) & (near_RC < 0.5)
    _, pieces = ndimage.label(ndimage.binary_dilation(strong_RC))
    total = max(float(edge_RC.sum()), 1e-6)
    seen = (
        (edge_RC * open_RC).sum() / total,
        (edge_RC * open_RC * (1 - near_RC)).sum() / total,
        (edge_RC * near_RC).sum() / total,
        np.log((float(right_N.sum()) + 0.5) / (pieces + len(image.passed_over or ()) + 1)),
        right_N.mean() if len(right_N) else 0.0,
        _unanswered(image),
        _texture(pixels_HWC),
    )
    return Missing(np.array(seen, np.float32), unexplained_RC)


@dataclass(frozen=True, eq=False)
class ShareFound:
    """(3), fitted.

    Attributes:
        mean_S, deviation_S: of the numbers it was fitted on.
        weight_S: of each, per deviation.
        bias_1: float32[1].
    """

    mean_S: Floats32
    deviation_S: Floats32
    weight_S: Floats32
    bias_1: Floats32

    def __call__(self, seen_PS: Floats32) -> Floats32:
        """float32[P], the share of each picture's objects that has a mask, expected.

        Args:
            seen_PS: of each picture; what is unknown, NaN, counts as the mean of those it was fitted on.
        """
        x_PS = np.nan_to_num(np.clip((seen_PS - self.mean_S) / self.deviation_S, -4, 4))
        found: Floats32 = 1 / (1 + np.exp(-(x_PS @ self.weight_S + self.bias_1)))
        return found


def fit_share(seen: Sequence[Floats32], recall_P: Sequence[float], *, ridge: float = RIDGE) -> ShareFound:
    """Logistic regression on the true shares.

    Args:
        seen: each picture's numbers.
        recall_P: share of its labels that has a mask.
        ridge: of the weights, per picture.

    Raises:
        ValueError: no pictures.
    """
    if not len(seen):
        raise ValueError("no picture to learn from: give labelled ones")
    seen_PS, recall = np.stack(seen).astype(np.float64), np.asarray(recall_P, np.float64)
    known_PS = np.where(np.isnan(seen_PS).all(axis=0), 0.0, seen_PS)
    mean_S, deviation_S = np.nanmean(known_PS, axis=0), np.nanstd(known_PS, axis=0) + 1e-3
    x_PS = np.nan_to_num(np.clip((known_PS - mean_S) / deviation_S, -4, 4))

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Mean cross entropy with the recall, and its slope."""
        score = x_PS @ weights[:-1] + weights[-1]
        error = 1 / (1 + np.exp(-score)) - recall
        value = np.logaddexp(0, score).mean() - (recall * score).mean() + ridge * (weights[:-1] ** 2).sum()
        slope = np.concatenate([x_PS.T @ error / len(x_PS) + 2 * ridge * weights[:-1], [error.mean()]])
        return float(value), slope

    found: Any = minimize(loss, np.zeros(len(SEEN) + 1), jac=True, method="L-BFGS-B")
    weights = found.x.astype(np.float32)
    return ShareFound(mean_S.astype(np.float32), deviation_S.astype(np.float32), weights[:-1], weights[-1:])


def _unanswered(image: AnnotatedImage) -> float:
    votes = [one.votes for one in image.annotations if one.votes is not None]
    asked = sum(one.asked for one in votes)
    return sum(one.asked - one.inside for one in votes) / max(1, asked) if votes else float("nan")


def _texture(pixels_HWC: Pixels) -> float:
    """Of some rows of the picture, in 255ths."""
    rows_RWC = pixels_HWC[:: max(1, len(pixels_HWC) // TEXTURE_ROWS)]
    grey = (rows_RWC[..., 0].astype(np.float32) + rows_RWC[..., 1] + rows_RWC[..., 2]) / np.float32(3)
    return float(np.log(np.abs(np.diff(grey, axis=1)).mean() + 1)) if grey.shape[1] > 1 else 0.0


def _cells(box_xywh: Sequence[float], grid: CellGrid) -> tuple[slice, slice]:
    """The cells that a box with inclusive corners touches."""
    x, y, width, height = box_xywh
    rows = (int(y * grid.rows / grid.height), int((y + height) * grid.rows / grid.height) + 1)
    columns = (int(x * grid.columns / grid.width), int((x + width) * grid.columns / grid.width) + 1)
    return slice(*rows), slice(*columns)
