"""One training step's loss: encode, decode first prompts, and on some steps a second round of corrections.

First round: a point is ambiguous, so the three multimask outputs are matched to the masks under it; a box
is not, so the single-mask output answers it too. Second round: a point from the error region is added (half
the time with the logits so far as a mask prompt), and the single-mask output answers. Predicted IoU is
trained in both by MSE. Where heads for it are given, `dense.py`'s loss of every pixel's embedding is added.

Shapes: B images, P prompts, T tokens, M outputs, K = S/2 x S/2 low-resolution cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from maskmill.pipeline.train.decode import Decoded, decode
from maskmill.pipeline.train.losses import iou_target, matched_cost, pair_costs
from maskmill.pipeline.train.nano.dense import DenseHeads, dense_loss
from maskmill.pipeline.train.prompts import correction_points, embed_tokens
from maskmill.pipeline.train.samples import Sample

DENSE_WEIGHT = 0.5


@dataclass(frozen=True)
class StepResult:
    """A step's loss and what to log.

    Attributes:
        loss: scalar, differentiable.
        best_iou: mean IoU of the best of three outputs with the target, over point prompts.
        iou_error: mean absolute error of predicted IoU.
        second_iou: mean IoU after a correction; NaN on steps without a second round.
        dense_loss: of the encoder's second teacher; NaN without it.
    """

    loss: Tensor
    best_iou: float
    iou_error: float
    second_iou: float
    dense_loss: float = float("nan")


def training_step(
    sam: Sam,
    samples: list[Sample],
    generator: torch.Generator,
    *,
    second_round: bool,
    bfloat16: bool,
    heads: DenseHeads | None = None,
) -> StepResult:
    """The loss of a batch.

    Args:
        sam: the model; gradients flow into all of it.
        samples: of one size and prompt count.
        generator: for correction points.
        second_round: correct each prompt once.
        bfloat16: run the network under autocast; losses stay float32.
        heads: add the dense loss through them.

    Returns:
        Loss and figures.
    """
    image = torch.from_numpy(np.stack([s.image_3SS for s in samples]))
    coords = torch.from_numpy(np.stack([s.prompts.coords_PT2 for s in samples]))
    labels = torch.from_numpy(np.stack([s.prompts.labels_PT for s in samples]))
    size = image.shape[-1]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        embedding = sam.image_encoder(image)
        first = decode(sam, embedding, embed_tokens(sam.prompt_encoder, coords, labels, size))
    parts = [_first_round(sample, first, b) for b, sample in enumerate(samples)]
    loss = torch.stack([part.loss for part in parts]).mean()
    second_iou = float("nan")
    if second_round:
        extra, second_iou = _second_round(sam, samples, embedding, first, generator, bfloat16)
        loss = 0.5 * loss + 0.5 * extra
    dense = float("nan")
    if heads is not None:
        targets = [torch.from_numpy(s.targets_Nss) for s in samples]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            taught = dense_loss(sam, heads, embedding, targets, generator)
        loss, dense = loss + DENSE_WEIGHT * taught, float(taught.detach())
    best = float(np.nanmean([part.best_iou for part in parts]))
    return StepResult(loss, best, float(np.mean([part.iou_error for part in parts])), second_iou, dense)


def _first_round(sample: Sample, decoded: Decoded, b: int) -> StepResult:
    targets_NK = torch.from_numpy(sample.targets_Nss).flatten(1)
    target_P, under_PN = torch.from_numpy(sample.prompts.target_P), torch.from_numpy(sample.under_PN)
    is_box_P = torch.from_numpy(sample.prompts.is_box_P)
    real_P = ~torch.from_numpy(sample.prompts.is_void_P)
    pairs = pair_costs(decoded.logits[b].float().flatten(2), targets_NK)
    rows = torch.arange(len(target_P))
    mask_loss = matched_cost(pairs.cost_PMN, target_P, under_PN)
    mask_loss = torch.where(is_box_P, 0.5 * mask_loss + 0.5 * pairs.cost_PMN[rows, 0, target_P], mask_loss)
    wanted = iou_target(pairs.iou_PMN, target_P, under_PN, is_box_P, ~real_P)
    error = decoded.iou[b].float() - wanted
    iou_loss = error[:, 1:].square().mean() + (error[:, 0].square() * is_box_P).mean()
    own_iou = pairs.iou_PMN[rows, 1:, target_P].amax(1)[~is_box_P & real_P]
    best = float(own_iou.mean()) if len(own_iou) else float("nan")
    return StepResult(
        mask_loss[real_P].mean() + iou_loss, best, float(error[:, 1:].detach().abs().mean()), float("nan")
    )


def _second_round(
    sam: Sam,
    samples: list[Sample],
    embedding: Tensor,
    first: Decoded,
    generator: torch.Generator,
    bfloat16: bool,
) -> tuple[Tensor, float]:
    """Correct the output of the highest predicted IoU (the single-mask output for boxes) with one more
    point."""
    size = 2 * first.logits.shape[-1]
    coords, labels, prior = [], [], []
    for b, sample in enumerate(samples):
        target = torch.from_numpy(sample.targets_Nss)[torch.from_numpy(sample.prompts.target_P)]
        best_P = first.iou[b, :, 1:].float().argmax(1) + 1
        best_P = torch.where(torch.from_numpy(sample.prompts.is_box_P), 0, best_P)
        logits = first.logits[b].detach().float()[torch.arange(len(best_P)), best_P]
        cell, label = correction_points(generator, logits, target)
        coords.append(
            torch.cat([torch.from_numpy(sample.prompts.coords_PT2), (cell * 2.0 + 0.5)[:, None]], dim=1)
        )
        labels.append(torch.cat([torch.from_numpy(sample.prompts.labels_PT), label[:, None]], dim=1))
        prior.append(logits)
    dense = None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        if float(torch.rand((), generator=generator)) < 0.5:
            prior_BPss = torch.stack(prior)
            shape = prior_BPss.shape[:2]
            dense = sam.prompt_encoder.mask_downscaling(prior_BPss.flatten(0, 1)[:, None]).unflatten(0, shape)
        tokens = embed_tokens(sam.prompt_encoder, torch.stack(coords), torch.stack(labels), size)
        again = decode(sam, embedding, tokens, dense)
    losses, ious = [], []
    for b, sample in enumerate(samples):
        target_P = torch.from_numpy(sample.prompts.target_P)
        pairs = pair_costs(
            again.logits[b, :, :1].float().flatten(2), torch.from_numpy(sample.targets_Nss).flatten(1)
        )
        rows = torch.from_numpy(np.flatnonzero(~sample.prompts.is_void_P))
        target_P = target_P[rows]
        error = again.iou[b, rows, 0].float() - pairs.iou_PMN[rows, 0, target_P]
        losses.append(pairs.cost_PMN[rows, 0, target_P].mean() + error.square().mean())
        ious.append(float(pairs.iou_PMN[rows, 0, target_P].mean()))
    return torch.stack(losses).mean(), float(np.mean(ious))
