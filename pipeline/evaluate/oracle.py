"""A person, simulated from ground truth: clicks on objects until the mask is good, and counts the clicks.

Assisted-manual: every object gets a click at its centre, then clicks on the answer's error until its IoU
reaches the wanted one or the clicks run out; what clicks can't finish is drawn by hand (stored as in truth)
or kept as far as it came. Semi-automatic: masks that the model is sure of are kept as they are, and only
objects that none of them meets are clicked.

It stands in for people in experiments: it never errs, never tires and always knows what an object is.

Source: Kirillov et al., Segment Anything (2023), section 4; the IoU of 0.9 and 20 clicks are the usual end of
interactive segmentation's NoC@90 (Sofiiuk et al., RITM, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maskmill.pipeline.evaluate.agreement import iou_matrix
from maskmill.pipeline.evaluate.clicks import Session
from maskmill.pipeline.evaluate.truth import Bools, Truth, batches
from maskmill.pipeline.rle import Rle, encode_mask
from maskmill.pipeline.segmenters.base import PromptableImage, Segmenter
from maskmill.pipeline.train.prompts import centre_point

MET_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Corrected:
    """An object that the oracle worked on.

    Attributes:
        mask: what it left.
        clicks: it gave.
        iou: of the clicked mask with the truth, before any drawing.
        drawn: finished by hand.
        point_xy: the first click.
    """

    mask: Rle
    clicks: int
    iou: float
    drawn: bool
    point_xy: tuple[float, float]


@torch.inference_mode()
def correct(
    segmenter: Segmenter,
    truth: Truth,
    *,
    wanted_iou: float = 0.9,
    most_clicks: int = 20,
    draw_rest: bool = True,
) -> list[Corrected]:
    """Annotates every true mask of a picture by clicks.

    Args:
        segmenter: answers the clicks.
        truth: the picture.
        wanted_iou: a mask is done from here on.
        most_clicks: then it is given up.
        draw_rest: finish what was given up by hand.

    Returns:
        One for each true mask, in order.
    """
    if not len(truth.masks_NHW):
        return []
    held = segmenter.prompt(segmenter.embed([truth.image])[0])
    done: list[Corrected] = []
    for part in batches(len(truth.masks_NHW), *truth.image.shape[:2]):
        done += _clicked(segmenter, held, truth.masks_NHW[part], wanted_iou, most_clicks, draw_rest)
    return done


def missing_from(truth: Truth, kept: Sequence[Rle]) -> Truth:
    """The picture with only those true masks that none of the kept masks meets."""
    truths = [encode_mask(mask) for mask in truth.masks_NHW]
    met_N = iou_matrix(truths, kept).max(axis=1) > MET_IOU if kept else np.zeros(len(truths), np.bool_)
    kinds = tuple(kind for kind, met in zip(truth.categories(), met_N, strict=True) if not met)
    return Truth(truth.name, truth.image, truth.masks_NHW[~met_N], kinds)


def _clicked(
    segmenter: Segmenter, held: PromptableImage, truths_PHW: Bools, wanted: float, most: int, draw_rest: bool
) -> list[Corrected]:
    starts = np.array([centre_point(mask) for mask in truths_PHW], dtype=np.float64)
    session = Session(segmenter, held, truths_PHW, starts)
    best_P, kept_PHW = np.full(len(starts), -1.0), np.zeros(truths_PHW.shape, np.bool_)
    for number in range(1, most + 1):
        session.ask()
        better = session.iou_P > best_P  # a later click may spoil a mask: a person would undo it
        best_P = np.where(better, session.iou_P, best_P)
        kept_PHW[better] = session.answer_PHW[better]
        session.done_P |= best_P >= wanted
        if session.done_P.all() or number == most:
            break
        session.correct()
    found = []
    for p, iou in enumerate(best_P):
        drawn = draw_rest and bool(iou < wanted)
        mask_HW = truths_PHW[p] if drawn else kept_PHW[p]
        point = float(starts[p, 0]), float(starts[p, 1])
        found.append(Corrected(encode_mask(mask_HW), int(session.clicks_P[p]), float(iou), drawn, point))
    return found
