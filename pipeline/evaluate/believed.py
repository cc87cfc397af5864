"""Can predicted IoU be believed? Random points of true masks go in; for each output of each, what the model
predicts and what is true.

Two figures: the correlation of the two, and the expected calibration error: outputs are put into ten bins
of equal width by prediction, and the differences of mean prediction and mean truth are averaged by the
bins' sizes. Outputs of one mask aren't independent, so intervals draw masks anew, with all of their
outputs.

Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 2.

Shapes: A answers (masks x points x outputs), N masks of a picture, P points, M outputs, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskmill.pipeline.evaluate.truth import Floats, Truth, as_tensor, batches, full_size, iou_rows
from maskmill.pipeline.segmenters.base import Prompts, Segmenter
from maskmill.pipeline.train.prompts import random_point

AnyFloats = NDArray[np.floating[Any]]

BINS = 10
DRAWS = 1000
COVERAGE = 0.95


@dataclass(frozen=True, eq=False)
class Answers:
    """What was predicted, and what is true.

    Attributes:
        predicted_A: float64.
        true_A: float64, IoU with the mask that was asked for.
        mask_A: int64, a number for each mask that was asked for.
    """

    predicted_A: Floats
    true_A: Floats
    mask_A: NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure, and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BeliefFigures:
    """How far predicted IoU can be believed.

    Attributes:
        answers: outputs that were looked at.
        masks: that were asked for.
        correlation: Pearson's, of predicted and true IoU.
        calibration_error: expected, in ten bins.
    """

    answers: int
    masks: int
    correlation: Interval
    calibration_error: Interval


@torch.inference_mode()
def ask_points(
    segmenter: Segmenter, pictures: Iterable[Truth], *, points: int = 10, seed: int = 0
) -> Answers:
    """Ask for each mask by random pixels of it.

    Args:
        segmenter: the model.
        pictures: with their true masks.
        points: a mask, each a prompt of its own.
        seed: of the pixels.

    Returns:
        All outputs' answers.

    Raises:
        ValueError: no picture has a mask.
    """
    rng = np.random.default_rng(seed)
    predicted, true, masks = [], [], []
    count = 0

    for picture in pictures:
        held = None
        for part in batches(len(picture.masks_NHW), *picture.image.shape[:2], most=8):
            held = held or segmenter.prompt(segmenter.embed([picture.image])[0])

            # Points inside each mask
            truths_NHW = picture.masks_NHW[part]
            drawn_P2 = [random_point(rng, mask_HW) for mask_HW in truths_NHW for _ in range(points)]
            asked = Prompts(
                points_PK2=np.array(drawn_P2, dtype=np.float64)[:, None],
                labels_PK=np.ones((len(drawn_P2), 1), np.int64),
            )

            # What comes of them
            answer = held.predict(asked, multimask=True)
            wanted_PM = torch.ones_like(answer.predicted_iou_PM, dtype=torch.bool)
            full = full_size(answer.masks(wanted_PM).float(), held.embedding) > segmenter.mask_threshold
            per_mask = full.view(len(truths_NHW), -1, *full.shape[1:])
            iou = iou_rows(per_mask, as_tensor(truths_NHW, per_mask)[:, None])

            predicted.append(answer.predicted_iou_PM.double().flatten().cpu().numpy())
            true.append(iou.flatten().cpu().numpy())
            masks.append(np.repeat(np.arange(count, count + len(truths_NHW)), per_mask.shape[1]))
            count += len(truths_NHW)

    if not true:
        raise ValueError("no picture with a mask was given; there is nothing to ask for")
    return Answers(np.concatenate(predicted), np.concatenate(true), np.concatenate(masks))


def belief_figures(answers: Answers, *, draws: int = DRAWS, seed: int = 0) -> BeliefFigures:
    """Correlation and calibration error with their bootstrap intervals.

    Args:
        answers: of one model.
        draws: bootstrap draws, of masks with all of their outputs.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    numbers = np.unique(answers.mask_A)
    rows_of = [np.flatnonzero(answers.mask_A == number) for number in numbers]
    drawn = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[i] for i in rng.integers(len(numbers), size=len(numbers))])
        drawn.append(_figures(answers.predicted_A[rows], answers.true_A[rows]))
    ends = np.quantile(np.array(drawn), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
    value = _figures(answers.predicted_A, answers.true_A)
    intervals = [Interval(value[i], float(ends[0, i]), float(ends[1, i])) for i in range(2)]
    return BeliefFigures(len(answers.true_A), len(numbers), *intervals)


def correlation(predicted_A: Floats, true_A: Floats) -> float:
    """Pearson's; 0 where one of the two never changes."""
    if predicted_A.std() == 0 or true_A.std() == 0:
        return 0.0
    return float(np.corrcoef(predicted_A, true_A)[0, 1])


def calibration_error(predicted_A: AnyFloats, true_A: AnyFloats, bins: int = BINS) -> float:
    """Mean difference of predicted and true IoU in bins of equal width over 0..1, weighed by size."""
    bin_A = np.clip((predicted_A * bins).astype(np.int64), 0, bins - 1)
    sums = np.bincount(bin_A, weights=predicted_A - true_A, minlength=bins)
    return float(np.abs(sums).sum() / len(true_A))


def _figures(predicted_A: Floats, true_A: Floats) -> tuple[float, float]:
    return correlation(predicted_A, true_A), calibration_error(predicted_A, true_A)
