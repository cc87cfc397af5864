"""Everything that is measured about a segmenter on one set of pictures, mask by mask and summed up.

A row a mask keeps every IoU, so that two models can be compared mask by mask on the same pictures (the gate
does), figures can be taken over slices, and the worst answers can be looked at.

Figures are means over masks; over several sets they are the mean of the sets' figures, as in the paper's
figure over 23 datasets.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maskmill.pipeline.evaluate.boundary import boundary_iou
from maskmill.pipeline.evaluate.clicks import answer, answer_clicks
from maskmill.pipeline.evaluate.coco import MaskLedger
from maskmill.pipeline.evaluate.truth import (
    LARGE_PX,
    SMALL_PX,
    Bools,
    Boxes,
    Floats,
    Truth,
    batches,
    boxes_of,
)
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.rle import Rle, encode_mask
from maskmill.pipeline.segmenters.base import Prompts, Segmenter
from maskmill.pipeline.settings import MaskSettings
from maskmill.pipeline.settings.evaluate import EvaluateSettings


@dataclass(frozen=True, eq=False)
class MaskRow:
    """One true mask and what it got.

    Attributes:
        picture: its picture's name.
        place: which of its masks.
        area_px: of the mask.
        category: its kind.
        figures: name -> IoU or other figure of this mask.
    """

    picture: str
    place: int
    area_px: int
    category: int
    figures: Mapping[str, float]

    @property
    def size(self) -> str:
        """COCO's word for its area."""
        return "small" if self.area_px < SMALL_PX else "medium" if self.area_px < LARGE_PX else "large"


@dataclass(frozen=True, eq=False)
class SetResult:
    """What came of one set.

    Attributes:
        name: of the set.
        images: pictures with at least one mask.
        rows: a row a mask.
        figures: name -> mean over masks, AP and AR.
    """

    name: str
    images: int
    rows: tuple[MaskRow, ...]
    figures: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class PictureResult:
    """What came of one picture: its rows, the chosen answers to one click, and what AP and AR count."""

    rows: tuple[MaskRow, ...]
    first_NHW: Bools
    boxed: tuple[Sequence[Rle], Sequence[float], Sequence[int]] | None
    proposed: tuple[Sequence[Rle], Sequence[float]] | None


def measure_picture(
    segmenter: Segmenter, truth: Truth, settings: EvaluateSettings, given: Boxes | None = None
) -> PictureResult:
    """Every measure that is asked for, on one picture.

    Args:
        segmenter: the model.
        truth: a picture with at least one mask.
        settings: what to measure.
        given: boxes from elsewhere for AP; None takes the true masks' boxes, with predicted IoU as score.
    """
    columns: dict[str, Floats] = {}
    first = np.zeros(truth.masks_NHW.shape, np.bool_)
    for word, start, prefix in (("points", "centre", "points"), ("random_points", "random", "random_points")):
        if word not in settings.measured:
            continue
        got = answer_clicks(
            segmenter, truth.image, truth.masks_NHW, clicks=settings.counts, first=start, seed=settings.seed
        )
        for r, count in enumerate(got.clicks):
            columns[f"{prefix}_{count}_best_miou"] = got.best_RN[r]
            columns[f"{prefix}_{count}_chosen_miou"] = got.chosen_RN[r]
        if word == "points":
            first = got.first_NHW
            columns["points_1_predicted_iou"] = got.predicted_RN[0]
            if "boundary" in settings.measured:
                columns["points_1_boundary_miou"] = _boundaries(first, truth.masks_NHW)

    # Masks from boxes: the true ones', then the detector's
    boxed = proposed = None
    if "boxes" in settings.measured:
        masks_NHW, scores, ious = answer_boxes(segmenter, truth, boxes_of(truth.masks_NHW))
        columns["boxes_miou"] = ious
        if "boundary" in settings.measured:
            columns["boxes_boundary_miou"] = _boundaries(masks_NHW, truth.masks_NHW)
        kinds: Sequence[int] = truth.categories()
        if given is not None:
            masks_NHW, scores, _ = answer_boxes(segmenter, truth, given.box_xyxy_N4, measured=False)
            scores, kinds = given.score_N, given.category_N
        boxed = [encode_mask(mask) for mask in masks_NHW], scores.tolist(), kinds

    if "proposals" in settings.measured:
        proposed = propose(segmenter, truth, settings)

    rows = tuple(
        MaskRow(truth.name, i, int(mask.sum()), kind, {name: float(c[i]) for name, c in columns.items()})
        for i, (mask, kind) in enumerate(zip(truth.masks_NHW, truth.categories(), strict=True))
    )
    return PictureResult(rows, first, boxed, proposed)


class SetMeter:
    """Takes pictures of a set one by one; `result` sums them up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[MaskRow] = []
        self.images = 0
        self._boxed, self._proposed = MaskLedger(), MaskLedger()

    def add(self, truth: Truth, result: PictureResult) -> None:
        """Notes a picture."""
        self.images += 1
        self.rows += result.rows
        if result.boxed is not None:
            self._boxed.add(truth, *result.boxed)
        if result.proposed is not None:
            self._proposed.add(truth, *result.proposed)

    def result(self) -> SetResult:
        """Figures over what was added.

        Raises:
            ValueError: no picture had a mask.
        """
        if not self.rows:
            raise ValueError(f"{self.name}: no picture with a mask was given; there is nothing to measure")
        figures = means(self.rows)
        if self._boxed.images:
            figures |= {f"boxes_{name}": value for name, value in self._boxed.average_precision().items()}
        if self._proposed.images:
            figures |= self._proposed.average_recall()
        return SetResult(self.name, self.images, tuple(self.rows), figures)


def means(rows: Sequence[MaskRow]) -> dict[str, float]:
    """Mean of each figure over masks; empty for no rows."""
    names = rows[0].figures if rows else ()
    return {name: float(np.mean([row.figures[name] for row in rows])) for name in names}


def averaged(results: Iterable[SetResult]) -> dict[str, float]:
    """The mean over sets of each figure that all of them have; NaN is left out, and stays where it is all."""
    each = [result.figures for result in results]
    shared = [name for name in (each[0] if each else {}) if all(name in figures for figures in each)]
    found = {name: [f[name] for f in each if not math.isnan(f[name])] for name in shared}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


@torch.inference_mode()
def answer_boxes(
    segmenter: Segmenter, truth: Truth, box_xyxy_N4: Floats, *, measured: bool = True
) -> tuple[Bools, Floats, Floats]:
    """The single-mask answer to each box.

    Args:
        segmenter: the model.
        truth: the picture.
        box_xyxy_N4: float64[N, 4] in px.
        measured: whether box i is of true mask i, whose IoU is then given; 0 otherwise.

    Returns:
        bool[N, H, W] answers, float64[N] predicted IoU, float64[N] IoU.
    """
    height, width = truth.image.shape[:2]
    count = len(box_xyxy_N4)
    masks, scores, ious = np.zeros((count, height, width), np.bool_), np.zeros(count), np.zeros(count)
    if not count:
        return masks, scores, ious
    held = segmenter.prompt(segmenter.embed([truth.image])[0])
    blank = np.zeros((1, height, width), np.bool_)
    for part in batches(count, height, width):
        wanted = truth.masks_NHW[part] if measured else blank
        got = answer(segmenter, held, Prompts(boxes_P4=box_xyxy_N4[part]), wanted, multimask=False)
        masks[part], scores[part] = got.chosen_PHW.cpu().numpy(), got.predicted_P.cpu().numpy()
        if measured:
            common, union = (masks[part] & wanted).sum((1, 2)), (masks[part] | wanted).sum((1, 2))
            ious[part] = common / np.maximum(union, 1)
    return masks, scores, ious


def propose(segmenter: Segmenter, truth: Truth, settings: EvaluateSettings) -> tuple[list[Rle], list[float]]:
    """Proposals for a picture: a dense grid, no quality filter, looser NMS, ranked by predicted IoU and
    stability.

    Source: Segment Anything, appendix D.3.
    """
    stage = AutomaticMasks(
        segmenter,
        MaskSettings(
            points_per_side=settings.grid, predicted_iou=0.0, stability=0.0, box_nms=settings.box_nms
        ),
    )
    found = stage([truth.image])[0].annotations
    ranked = sorted(found, key=lambda one: -(one.predicted_iou + one.stability_score))[:1000]
    return (
        [one.segmentation for one in ranked],
        [(one.predicted_iou + one.stability_score) / 2 for one in ranked],
    )


def as_dict(row: MaskRow) -> dict[str, object]:
    """A row for JSON."""
    return dataclasses.asdict(row) | {"figures": dict(row.figures), "size": row.size}


def _boundaries(answers_NHW: Bools, truths_NHW: Bools) -> Floats:
    return np.array([boundary_iou(a, t) for a, t in zip(answers_NHW, truths_NHW, strict=True)])
