"""One mask, clicked: a click or box asks, and each further click corrects the last answer.

The first click is ambiguous: of the model's three outputs the one of the highest predicted IoU is given, or
the next ones on demand. A box, and every click after the first answer, asks for the single output, with the
last answer's logits as a mask prompt. These are the rounds of `evaluate/clicks.py`, one mask at a time and
without a truth.

Only the output that is given passes the mask head, and its run lengths are made straight from its small
logits: the same as of logits at the picture's size (`full_size`), which at 1500x2250 cost more than all else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maskmill.pipeline.masks.upsample import runs
from maskmill.pipeline.rle import Rle
from maskmill.pipeline.segmenters.base import PromptableImage, Prompts

if TYPE_CHECKING:
    from torch import Tensor

Point = tuple[float, float]


@dataclass(frozen=True)
class Clicks:
    """What a person did for one mask so far.

    Attributes:
        points: x, y in px of the picture.
        labels: 1 for what belongs to the mask, 0 for what doesn't, one a point.
        box: left, top, right, bottom in px, drawn before any click; None without.
        choice: which output the first click gets, 0 for the best, in the order of predicted IoU.

    Raises:
        ValueError: neither a point nor a box, another number of labels, or a first click outside the mask.
    """

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    choice: int = 0

    def __post_init__(self) -> None:
        if not self.points and self.box is None:
            raise ValueError("nothing was clicked: give a point or a box")
        if len(self.points) != len(self.labels) or not set(self.labels) <= {0, 1}:
            raise ValueError(
                f"{len(self.points)} points and labels {self.labels}: give each point a 1 or a 0"
            )
        if self.box is None and self.labels[0] != 1:
            raise ValueError("the first click must be on the mask")
        if self.choice < 0:
            raise ValueError(f"choice={self.choice} must be at least 0")

    @property
    def before(self) -> Clicks | None:
        """The same without the last click; None for the first answer."""
        if len(self.points) <= (0 if self.box is not None else 1):
            return None
        return Clicks(self.points[:-1], self.labels[:-1], self.box, self.choice)


@dataclass(frozen=True, eq=False)
class Clicked:
    """An answer.

    Attributes:
        mask: of the picture's size; may be empty.
        predicted_iou: the model's own estimate.
        outputs: that the first click could have had.
        logits_1hw: float32[1, h, w], which the next click corrects.
    """

    mask: Rle
    predicted_iou: float
    outputs: int
    logits_1hw: Tensor


@torch.inference_mode()
def answer_clicks(
    held: PromptableImage, clicks: Clicks, before: Clicked | None, *, threshold: float
) -> Clicked:
    """The mask that clicks ask for.

    Args:
        held: the picture's embedding, ready for prompts.
        clicks: all so far.
        before: the answer to all but the last one; None for the first answer.
        threshold: logits above are mask.
    """
    points = np.array([clicks.points], np.float64) if clicks.points else None
    prompts = Prompts(
        points_PK2=points,
        labels_PK=None if points is None else np.array([clicks.labels], np.int64),
        boxes_P4=None if clicks.box is None else np.array([clicks.box], np.float64),
        masks_P1HW=None if before is None else before.logits_1hw[:, None],
    )
    prediction = held.predict(prompts, multimask=before is None and clicks.box is None)

    # The output that is wanted, by predicted IoU
    iou_M = prediction.predicted_iou_PM[0]
    order = torch.argsort(iou_M, descending=True, stable=True)
    output = int(order[clicks.choice % len(order)])
    keep_PM = torch.zeros_like(prediction.predicted_iou_PM, dtype=torch.bool)
    keep_PM[0, output] = True

    logits_1hw = prediction.masks(keep_PM).float()
    mask = runs(logits_1hw[0].cpu().numpy(), held.embedding.frame, threshold=threshold)
    outputs = before.outputs if before is not None else len(order)
    return Clicked(mask, float(iou_M[output]), outputs, logits_1hw)
