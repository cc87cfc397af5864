"""A person, simulated from ground truth: clicks on objects until the mask is good, and counts the clicks.

Assisted-manual: every object gets a click at its centre, then clicks on the answer's error until its IoU
reaches the wanted one or the clicks run out; what clicks can't finish is drawn by hand (stored as in truth)
or kept as far as it came. Semi-automatic: masks that the model is sure of are kept as they are, and only
objects that none of them meets are clicked.

Its clicks are answered by what answers a person's in the page (interactive.py), one mask at a time and on one
torch thread: float sums in another order, as batches and threads have them, move pixels at a mask's edge. So
the same clicks leave the same mask here and there, bit for bit. On a CPU several masks are worked on side by
side.

It stands in for people in experiments: it never errs, never tires and always knows what an object is.

Source: Kirillov et al., Segment Anything (2023), section 4; the IoU of 0.9 and 20 clicks are the usual end of
interactive segmentation's NoC@90 (Sofiiuk et al., RITM, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from maskmill.pipeline.evaluate.agreement import iou_matrix
from maskmill.pipeline.evaluate.clicks import error_click
from maskmill.pipeline.evaluate.truth import Bools, Truth
from maskmill.pipeline.machine.torch_threads import map_jobs, one_thread
from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.pipeline.segmenters.base import PromptableImage, Segmenter
from maskmill.pipeline.segmenters.interactive import Clicks, answer_clicks
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
    threshold = segmenter.mask_threshold
    finish = partial(_clicked, held, wanted_iou, most_clicks, draw_rest, threshold)
    threads = torch.get_num_threads() if held.embedding.features_CHW.device.type == "cpu" else 1
    with one_thread():
        return map_jobs(finish, list(truth.masks_NHW), threads)


def missing_from(truth: Truth, kept: Sequence[Rle]) -> Truth:
    """The picture with only those true masks that none of the kept masks meets."""
    truths = [encode_mask(mask) for mask in truth.masks_NHW]
    met_N = iou_matrix(truths, kept).max(axis=1) > MET_IOU if kept else np.zeros(len(truths), np.bool_)
    kinds = tuple(kind for kind, met in zip(truth.categories(), met_N, strict=True) if not met)
    return Truth(truth.name, truth.image, truth.masks_NHW[~met_N], kinds)


def _clicked(
    held: PromptableImage, wanted: float, most: int, draw_rest: bool, threshold: float, truth_HW: Bools
) -> Corrected:
    x, y = centre_point(truth_HW)
    points, labels = [(float(x), float(y))], [1]
    best, best_iou, last = None, -1.0, None
    while True:
        last = answer_clicks(held, Clicks(tuple(points), tuple(labels)), last, threshold=threshold)
        answer_HW = decode(last.mask)
        iou = float((answer_HW & truth_HW).sum() / max(1, (answer_HW | truth_HW).sum()))
        if iou > best_iou:  # a later click may spoil a mask: a person would undo it
            best, best_iou = last.mask, iou

        click = error_click(answer_HW, truth_HW)
        if best_iou >= wanted or len(points) == most or click is None:
            break
        points.append((float(click[0]), float(click[1])))
        labels.append(click[2])
    drawn = draw_rest and best_iou < wanted
    mask = encode_mask(truth_HW) if drawn or best is None else best
    return Corrected(mask, len(points), best_iou, drawn, points[0])
