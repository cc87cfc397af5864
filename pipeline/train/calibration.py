"""Predicted IoU made true again after a training: a rising curve over what the head says.

A model that learns from its own masks learns that it was right. Once the weights stand, training pictures
are asked as in the first round of the recipe, in their plain view; isotonic regression of what the answers
are worth on what the head says gives the knots of `CalibratedHead`, which are stored with the weights. The
curve rises, so the order of answers stays: only what a threshold means changes.

What an answer is worth is its best IoU with a mask under the prompt, times the IoU that this mask itself is
expected to have (1 of a person's), and counts as that mask weighs. It doesn't know what nobody labelled.

Shapes: P prompts, M outputs, K low-resolution cells, A answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.segmenters.calibrated import CalibratedHead
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.recipe import first_answers
from maskmill.pipeline.verify.fit import fitted_curve

LEAST_ANSWERS = 200


@dataclass(frozen=True)
class Fit:
    """What a calibration saw.

    Attributes:
        answers: outputs asked for.
        error_before, error_after: mean absolute error of predicted IoU on them.
    """

    answers: int
    error_before: float
    error_after: float


def check_curve(sam: Sam) -> None:
    """Sees that a model's predicted IoU has a curve.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(sam.mask_decoder.iou_prediction_head, CalibratedHead):
        raise ValueError(
            "retrain.calibrate=true: this model's predicted IoU has no curve to fit (students with iou_knots "
            "have, such as nano); leave it false, and choose thresholds again by maskmill tune"
        )


@torch.no_grad()
def calibrate_on(sam: Sam, images: Iterable[TrainImage], settings: TrainSettings) -> Fit | None:
    """Fits a model's curve in place.

    Args:
        sam: trained, in evaluation mode, with a curve.
        images: in their plain view.
        settings: of the training.

    Returns:
        What it saw; None, and the curve as it was, where there were fewer than `LEAST_ANSWERS`.

    Raises:
        ValueError: a model without a curve.
    """
    check_curve(sam)
    head: CalibratedHead = sam.mask_decoder.iou_prediction_head
    before = tuple(one.clone() for one in head.curve())
    knots = len(before[0])

    # What the head itself says, and what that is worth
    wide = torch.linspace(-2, 3, knots, device=before[0].device)
    head.set_curve(wide, wide)
    found = [first_answers(sam, image, settings) for image in images]
    head.set_curve(*before)
    said_A = np.concatenate([one.said_PM.flatten() for one in found] or [np.zeros(0, np.float32)])
    if len(said_A) < LEAST_ANSWERS:
        return None
    true_A = np.concatenate([one.worth_PM.flatten() for one in found])
    weight_A = np.concatenate([np.repeat(one.weight_P, one.said_PM.shape[1]) for one in found]) + 1e-6

    # Its curve
    told = torch.from_numpy(said_A)
    error_before = float(np.abs(head.corrected(told.to(before[0].device)).cpu().numpy() - true_A).mean())
    curve = fitted_curve(said_A, true_A, weight_A, knots)
    head.set_curve(torch.from_numpy(curve.said_K), torch.from_numpy(curve.true_K))
    error_after = float(np.abs(head.corrected(told.to(before[0].device)).cpu().numpy() - true_A).mean())
    return Fit(len(said_A), error_before, error_after)
