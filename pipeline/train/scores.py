"""What a model says of its masks, learned alone: the masks stand, predicted IoU learns to choose among them.

On pictures of another style a model often has a good mask among its three and takes another one. Training
pictures are asked by one point each; of every answer the IoU with the mask that the point was drawn from is
known (times what that mask itself is worth, where verdicts say so). First the head of predicted IoU is fitted
to that, its input being kept from the asking (`fit_scores`); then isotonic regression gives the rising curve
of `CalibratedHead`, whose knots are stored with the weights (`calibrate`): it changes no order, only what a
threshold means. Either may be had without the other, and after a training of masks or without one.

Masks under the point other than its own are nobody's praise here: taught that any of them will do, nano chose
worse on every style tried (benchmarks/results/loop.md).

Shapes: P prompts of all pictures, M outputs (the single-mask one first), C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maskmill.pipeline.segmenters.calibrated import CalibratedHead
from maskmill.pipeline.train.recipe import FirstAnswers
from maskmill.pipeline.verify.fit import fitted_curve

LEAST_ANSWERS = 200
"""Fewer tell nothing: head and curve stay as they were."""

BATCH, RATE, DECAY = 128, 3e-4, 0.05


@dataclass(frozen=True)
class ScoreFit:
    """What a fit saw.

    Attributes:
        answers: outputs asked for.
        error_before, error_after: root of the mean squared error of predicted IoU on them, which is what both
            fits lower.
    """

    answers: int
    error_before: float
    error_after: float


def fit_scores(head: nn.Module, asked: Sequence[FirstAnswers], *, steps: int, seed: int) -> ScoreFit | None:
    """Fits a head of predicted IoU in place.

    The single-mask output, which answers several prompts, goes on saying what it said.

    Args:
        head: the decoder's.
        asked: of the training's pictures.
        steps: of `BATCH` prompts each.
        seed: of their order.

    Returns:
        What it saw; None, and the head as it was, where there were fewer than `LEAST_ANSWERS`.
    """
    if sum(one.worth_PM.size for one in asked) < LEAST_ANSWERS:
        return None
    device = next(head.parameters()).device
    token_PC = torch.from_numpy(np.concatenate([one.token_PC for one in asked])).to(device)
    worth_PM = torch.from_numpy(np.concatenate([one.worth_PM for one in asked])).to(device)
    with torch.no_grad():
        before_PM = head(token_PC)
    wanted_PM = torch.cat([before_PM[:, :1], worth_PM], dim=1)

    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
        rows = torch.randint(len(token_PC), (BATCH,), generator=generator).to(device)
        loss = (head(token_PC[rows]) - wanted_PM[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    with torch.no_grad():
        after_PM = head(token_PC)
    return ScoreFit(worth_PM.numel(), _error(before_PM[:, 1:], worth_PM), _error(after_PM[:, 1:], worth_PM))


def check_curve(head: nn.Module) -> CalibratedHead:
    """The head, which has a curve.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(head, CalibratedHead):
        raise ValueError(
            "retrain.calibrate=true: this model's predicted IoU has no curve to fit (students with iou_knots "
            "have, such as nano); leave it false, and choose thresholds again by maskmill tune"
        )
    return head


@torch.no_grad()
def calibrate(head: nn.Module, asked: Sequence[FirstAnswers]) -> ScoreFit | None:
    """Fits a head's curve in place.

    Args:
        head: the decoder's, with a curve.
        asked: of the training's pictures; an answer counts as its mask weighs.

    Returns:
        What it saw; None, and the curve as it was, where there were fewer than `LEAST_ANSWERS`.

    Raises:
        ValueError: a head without a curve.
    """
    curved = check_curve(head)
    device, knots = curved.curve()[0].device, len(curved.curve()[0])
    if sum(one.worth_PM.size for one in asked) < max(LEAST_ANSWERS, knots):
        return None
    said = curved.raw(torch.from_numpy(np.concatenate([one.token_PC for one in asked])).to(device))[:, 1:]
    worth = torch.from_numpy(np.concatenate([one.worth_PM for one in asked])).to(device)
    weight_P = np.concatenate([one.weight_P for one in asked]).astype(np.float32) + np.float32(1e-6)
    weight_PM = np.repeat(weight_P[:, None], said.shape[1], 1)

    error_before = _error(curved.corrected(said), worth)
    fitted = fitted_curve(
        said.cpu().numpy().flatten(), worth.cpu().numpy().flatten(), weight_PM.flatten(), knots
    )
    curved.set_curve(torch.from_numpy(fitted.said_K), torch.from_numpy(fitted.true_K))
    return ScoreFit(worth.numel(), error_before, _error(curved.corrected(said), worth))


def _error(said_PM: Tensor, worth_PM: Tensor) -> float:
    return float((said_PM - worth_PM).square().mean().sqrt())
