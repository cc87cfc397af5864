"""Simulated clicks: how good are masks after 1, 2, 3, 5, 9 clicks, and how many does a mask take?

The first click is the pixel deepest inside the true mask ("centre") or a random pixel of it; each next one is
the deepest pixel of the error between truth and the last answer, foreground where the answer misses,
background where it spills. The last answer's logits go in as a mask prompt. One click is ambiguous: of its
three outputs `best` is the one nearest to the truth, `chosen` the one of the highest predicted IoU. From the
second click on `chosen` is the single-mask output, which is what it is trained for, and `best` the best of
the three; corrections follow the chosen one, which is what a person would see.

Source: Kirillov et al., Segment Anything (2023), appendix D.1, Point sampling.

Shapes: P masks at a time, K clicks so far, M outputs, N masks, R click counts that are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from maskmill.pipeline.evaluate.truth import Bools, Floats, as_tensor, batches, full_size, iou_rows
from maskmill.pipeline.segmenters.base import PromptableImage, Prompts, Segmenter
from maskmill.pipeline.train.prompts import centre_point, random_point

CLICKS = (1, 2, 3, 5, 9)
FIRST_CLICKS = ("centre", "random")
PADDING = -1


@dataclass(frozen=True, eq=False)
class ClickAnswers:
    """IoUs of a picture's masks.

    Attributes:
        clicks: the counts that are reported.
        best_RN: float64[R, N], IoU of the best of three outputs.
        chosen_RN: float64[R, N], IoU of the output that the model would give.
        predicted_RN: float64[R, N], what it predicts for that.
        first_NHW: bool[N, H, W], the chosen answers after the first click.
    """

    clicks: tuple[int, ...]
    best_RN: Floats
    chosen_RN: Floats
    predicted_RN: Floats
    first_NHW: Bools


@dataclass(frozen=True)
class Round:
    """What a batch of prompts got.

    Attributes:
        chosen_PHW: bool[P, H, W].
        logits_Phw: float32[P, h, w], of the chosen answers.
        predicted_P: float64[P].
        best_iou_P: float64[P], of three outputs; NaN where only one was asked for.
    """

    chosen_PHW: Tensor
    logits_Phw: Tensor
    predicted_P: Tensor
    best_iou_P: Tensor


@torch.inference_mode()
def answer_clicks(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    masks_NHW: Bools,
    *,
    clicks: Sequence[int] = CLICKS,
    first: str = "centre",
    seed: int = 0,
) -> ClickAnswers:
    """Clicks on every mask of a picture.

    Args:
        segmenter: the model.
        image: uint8[H, W, 3].
        masks_NHW: bool[N, H, W], none empty.
        clicks: counts to report, rising, from 1.
        first: "centre" or "random".
        seed: of random first clicks.

    Returns:
        IoUs by count and mask.

    Raises:
        ValueError: an empty mask, an unknown `first`, or counts that don't rise from 1.
    """
    if first not in FIRST_CLICKS:
        raise ValueError(f"first={first!r} is unknown: use one of {', '.join(FIRST_CLICKS)}")
    if not clicks or list(clicks) != sorted(set(clicks)) or clicks[0] < 1:
        raise ValueError(f"clicks={tuple(clicks)} must rise from at least 1")

    # First clicks
    rng = np.random.default_rng(seed)
    pick = centre_point if first == "centre" else lambda mask_HW: random_point(rng, mask_HW)
    starts = np.array([pick(mask_HW) for mask_HW in masks_NHW], dtype=np.float64).reshape(-1, 2)

    held = segmenter.prompt(segmenter.embed([image])[0])
    shape = (len(clicks), len(masks_NHW))
    best, chosen, predicted = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    answers = np.zeros(masks_NHW.shape, np.bool_)

    # Round by round, correcting the chosen answer
    for part in batches(len(masks_NHW), *image.shape[:2]):
        session = Session(segmenter, held, masks_NHW[part], starts[part])
        for number in range(1, clicks[-1] + 1):
            got = session.ask(want_best=number in clicks)
            if number == 1:
                answers[part] = got.chosen_PHW.cpu().numpy()
            if number in clicks:
                row = list(clicks).index(number)
                best[row, part] = got.best_iou_P.cpu().numpy()
                chosen[row, part] = session.iou_P
                predicted[row, part] = got.predicted_P.cpu().numpy()
            if number < clicks[-1]:
                session.correct()

    return ClickAnswers(tuple(clicks), best, chosen, predicted, answers)


class Session:
    """Clicks on some masks of one picture: `ask`, `correct`, `ask` ...

    Args:
        segmenter: the model.
        held: its embedding of the picture, ready for prompts.
        truths_PHW: bool[P, H, W].
        starts_P2: float64[P, 2], x, y of the first clicks in px.

    Attributes:
        iou_P: float64[P], IoU of the last answers.
        answer_PHW: bool[P, H, W], those answers.
    """

    def __init__(
        self, segmenter: Segmenter, held: PromptableImage, truths_PHW: Bools, starts_P2: Floats
    ) -> None:
        self._segmenter, self._held, self._truths_PHW = segmenter, held, truths_PHW
        self._points_PK2 = starts_P2[:, None].astype(np.float64)
        self._labels_PK = np.ones((len(starts_P2), 1), np.int64)
        self._prior: Tensor | None = None
        count = len(starts_P2)
        self.iou_P = np.zeros(count)
        self.answer_PHW: Bools = np.zeros(truths_PHW.shape, np.bool_)

    def ask(self, *, want_best: bool = False) -> Round:
        """Answers to the clicks so far; `want_best` asks for three outputs at later clicks too."""
        prompts = Prompts(points_PK2=self._points_PK2, labels_PK=self._labels_PK, masks_P1HW=self._prior)
        first = self._prior is None
        got = answer(self._segmenter, self._held, prompts, self._truths_PHW, multimask=first)
        if want_best and not first:
            three = answer(self._segmenter, self._held, prompts, self._truths_PHW, multimask=True)
            got = Round(got.chosen_PHW, got.logits_Phw, got.predicted_P, three.best_iou_P)
        self.answer_PHW = got.chosen_PHW.cpu().numpy()
        common = (self.answer_PHW & self._truths_PHW).sum((1, 2))
        union = (self.answer_PHW | self._truths_PHW).sum((1, 2))
        self.iou_P = common / np.maximum(union, 1)
        self._prior = got.logits_Phw[:, None]
        return got

    def correct(self) -> None:
        """Adds a click on each answer's error; masks without error get padding."""
        points = np.zeros((len(self.iou_P), 1, 2))
        labels = np.full((len(self.iou_P), 1), PADDING, np.int64)
        for i, (answer_HW, truth_HW) in enumerate(zip(self.answer_PHW, self._truths_PHW, strict=True)):
            click = error_click(answer_HW, truth_HW)
            if click is not None:
                points[i, 0], labels[i, 0] = click[:2], click[2]
        self._points_PK2 = np.concatenate([self._points_PK2, points], axis=1)
        self._labels_PK = np.concatenate([self._labels_PK, labels], axis=1)


def answer(
    segmenter: Segmenter, held: PromptableImage, prompts: Prompts, truths_PHW: Bools, *, multimask: bool
) -> Round:
    """Decodes prompts and holds the answers against their truths."""
    prediction = held.predict(prompts, multimask=multimask)
    predicted_PM = prediction.predicted_iou_PM
    logits = prediction.masks(torch.ones_like(predicted_PM, dtype=torch.bool))
    full = full_size(logits.float(), held.embedding) > segmenter.mask_threshold
    masks_PMHW = full.view(*predicted_PM.shape, *full.shape[1:])
    iou_PM = iou_rows(masks_PMHW, as_tensor(truths_PHW, masks_PMHW)[:, None])
    rows, column = torch.arange(len(predicted_PM)), predicted_PM.argmax(dim=1)
    column = column.to(masks_PMHW.device)
    return Round(
        masks_PMHW[rows, column],
        logits.float().view(*predicted_PM.shape, *logits.shape[1:])[rows, column],
        predicted_PM[rows, column].double(),
        iou_PM.amax(1) if multimask else torch.full((len(rows),), float("nan"), dtype=torch.float64),
    )


def error_click(answer_HW: Bools, truth_HW: Bools) -> tuple[int, int, int] | None:
    """Where the answer is most wrong: (x, y, label), label 1 where it misses, 0 where it spills.

    Returns:
        The pixel deepest inside either kind of error, misses first on a tie; None where there is none.
    """
    found: tuple[float, tuple[int, int, int]] | None = None
    for label, error_HW in ((1, truth_HW & ~answer_HW), (0, answer_HW & ~truth_HW)):
        if not error_HW.any():
            continue
        x, y = centre_point(error_HW)
        depth = _depth(error_HW, x, y)
        if found is None or depth > found[0]:
            found = depth, (x, y, label)
    return None if found is None else found[1]


def _depth(region_HW: Bools, x: int, y: int) -> float:
    """How far a pixel of a region is from its outline, the picture's border included."""
    rows, cols = np.flatnonzero(region_HW.any(axis=1)), np.flatnonzero(region_HW.any(axis=0))
    cut = np.pad(region_HW[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1], 1)
    depth: float = ndimage.distance_transform_edt(cut)[y - rows[0] + 1, x - cols[0] + 1]
    return depth
