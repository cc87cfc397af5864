"""One training step's loss: encode, decode first prompts, and on some steps correct them by further clicks.

First round: a point is ambiguous, so the three multimask outputs are matched to the masks under it; a box
is not, so the single-mask output answers it too. Corrections: points from the error regions are added one
by one, as many as asked for, the logits so far going in as a mask prompt (in most steps); the single-mask
output answers, and the last answer is trained. Predicted IoU is trained in both by squared error. Where
heads for it are given, `dense.py`'s loss of every pixel's embedding is added.

Everything is batched tensors on the model's device, which autocasts; a trunk with weights of its own
normalisation stays in float32 on a CPU, whose bfloat16 convolutions are slow backward.

Shapes: B pictures, P prompts, T tokens, M outputs, N masks, K = s x s low-resolution cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from maskmill.pipeline.segmenters.efficientnet import Lite0Encoder
from maskmill.pipeline.train.decode import Decoded, decode
from maskmill.pipeline.train.losses import iou_target, matched_cost, pair_costs
from maskmill.pipeline.train.nano.dense import DenseHeads, dense_loss
from maskmill.pipeline.train.nano.draw_prompts import FirstPrompts, correct
from maskmill.pipeline.train.pictures import Pictures
from maskmill.pipeline.train.prompts import embed_tokens

DENSE_WEIGHT = 0.5
IOU_WEIGHT = 2.0
PRIOR_SHARE = 0.8
"""Of the steps with corrections, those whose mask so far goes in as a prompt."""


@dataclass(frozen=True)
class StepConfig:
    """How a step computes.

    Attributes:
        corrections: clicks after the first prompt; 0 for none.
        bfloat16: run the network under autocast; losses stay float32.
        freeze_trunk: no gradient for a pretrained trunk.
    """

    corrections: int = 0
    bfloat16: bool = True
    freeze_trunk: bool = False


@dataclass(frozen=True)
class StepResult:
    """A step's loss and what to log.

    Attributes:
        loss: scalar, differentiable.
        best_iou: mean IoU of the best of three outputs with the target, over point prompts.
        box_iou: mean IoU of the single-mask output with the target, over boxes.
        iou_error: mean absolute error of predicted IoU.
        corrected_iou: mean IoU after the corrections; NaN on steps without.
        dense_loss: of the encoder's second teacher; NaN without it.
    """

    loss: Tensor
    best_iou: float
    box_iou: float
    iou_error: float
    corrected_iou: float = float("nan")
    dense_loss: float = float("nan")


def training_step(
    sam: Sam,
    pictures: Pictures,
    prompts: FirstPrompts,
    generator: torch.Generator,
    config: StepConfig,
    heads: DenseHeads | None = None,
) -> StepResult:
    """The loss of a batch.

    Args:
        sam: the model; gradients flow into all of it that isn't frozen.
        pictures: on the model's device.
        prompts: drawn from them.
        generator: for correction points, of the same device.
        config: how.
        heads: add the dense loss through them.

    Returns:
        Loss and figures.
    """
    truth_BNK = pictures.shares_BNK()
    with _autocast(pictures, config):
        embedding = _embed(sam, pictures, config)
        tokens = embed_tokens(sam.prompt_encoder, prompts.coords_BPT2, prompts.labels_BPT, pictures.side)
        first = decode(sam, embedding, tokens)
    result = _first_round(first, truth_BNK, prompts)
    loss, corrected, dense = result.loss, float("nan"), float("nan")

    if config.corrections:
        extra, corrected = _corrected(sam, pictures, prompts, embedding, first, generator, config)
        loss = 0.5 * loss + 0.5 * extra

    if heads is not None:
        with _autocast(pictures, config):
            taught = dense_loss(sam, heads, embedding, truth_BNK, generator)
        loss, dense = loss + DENSE_WEIGHT * taught, float(taught.detach())
    return StepResult(loss, result.best_iou, result.box_iou, result.iou_error, corrected, dense)


def _autocast(pictures: Pictures, config: StepConfig) -> torch.autocast:
    return torch.autocast(pictures.image_B3SS.device.type, dtype=torch.bfloat16, enabled=config.bfloat16)


def _embed(sam: Sam, pictures: Pictures, config: StepConfig) -> Tensor:
    image_B3SS, encoder = pictures.normalised(), sam.image_encoder
    if not isinstance(encoder, Lite0Encoder):
        embedding: Tensor = encoder(image_B3SS)
        return embedding
    if config.freeze_trunk:
        with torch.no_grad():
            taps = encoder.trunk(image_B3SS)
        return encoder.refined(taps)
    in_bfloat16 = config.bfloat16 and image_B3SS.device.type != "cpu"
    with torch.autocast(image_B3SS.device.type, dtype=torch.bfloat16, enabled=in_bfloat16):
        taps = encoder.trunk(image_B3SS)
    return encoder.refined(taps)


def _first_round(decoded: Decoded, truth_BNK: Tensor, prompts: FirstPrompts) -> StepResult:
    pairs = pair_costs(decoded.logits.float().flatten(3), truth_BNK)
    cost_RMN, iou_RMN = pairs.cost_PMN.flatten(0, 1), pairs.iou_PMN.flatten(0, 1)
    target_R, under_RN = prompts.target_BP.flatten(), prompts.under_BPN.flatten(0, 1)
    is_box_R, is_real_R = prompts.is_box_BP.flatten(), ~prompts.is_void_BP.flatten()
    rows_R = torch.arange(len(target_R), device=target_R.device)

    mask_R = matched_cost(cost_RMN, target_R, under_RN)
    mask_R = torch.where(is_box_R, 0.3 * mask_R + 0.7 * cost_RMN[rows_R, 0, target_R], mask_R)
    mask_loss = (mask_R * is_real_R).sum() / is_real_R.sum().clamp(min=1)

    wanted_RM = iou_target(iou_RMN, target_R, under_RN, is_box_R, ~is_real_R)
    error_RM = decoded.iou.float().flatten(0, 1) - wanted_RM
    iou_loss = error_RM[:, 1:].square().mean() + (error_RM[:, 0].square() * is_box_R).mean()

    best_R, single_R = iou_RMN[rows_R, 1:, target_R].amax(1), iou_RMN[rows_R, 0, target_R]
    return StepResult(
        mask_loss + IOU_WEIGHT * iou_loss,
        _mean(best_R[~is_box_R & is_real_R]),
        _mean(single_R[is_box_R]),
        float(error_RM[:, 1:].detach().abs().mean()),
    )


def _corrected(
    sam: Sam,
    pictures: Pictures,
    prompts: FirstPrompts,
    embedding: Tensor,
    first: Decoded,
    generator: torch.Generator,
    config: StepConfig,
) -> tuple[Tensor, float]:
    """Correct the output of the highest predicted IoU (the single-mask output for boxes) click by click; only
    the last answer has a gradient."""
    truth_BNK = pictures.shares_BNK()
    own_BPK = truth_BNK.gather(1, prompts.target_BP[..., None].expand(-1, -1, truth_BNK.shape[-1]))
    solid_BPss = (own_BPK > 0.5).view(*own_BPK.shape[:2], *first.logits.shape[-2:])
    chosen_BP = torch.where(prompts.is_box_BP, 0, first.iou[..., 1:].argmax(2) + 1)
    answer_BPss = _taken(first.logits, chosen_BP)
    coords, labels = prompts.coords_BPT2, prompts.labels_BPT
    has_prior = float(torch.rand((), generator=generator, device=generator.device)) < PRIOR_SHARE
    again = first
    for click in range(config.corrections):
        point_BP2, label_BP = correct(answer_BPss, solid_BPss, generator)
        coords = torch.cat([coords, point_BP2[:, :, None]], dim=2)
        labels = torch.cat([labels, label_BP[:, :, None]], dim=2)
        is_last = click == config.corrections - 1
        with torch.set_grad_enabled(is_last), _autocast(pictures, config):
            dense = None
            if has_prior:
                flat = sam.prompt_encoder.mask_downscaling(answer_BPss.flatten(0, 1)[:, None])
                dense = flat.unflatten(0, answer_BPss.shape[:2])
            tokens = embed_tokens(sam.prompt_encoder, coords, labels, pictures.side)
            again = decode(sam, embedding if is_last else embedding.detach(), tokens, dense)
        answer_BPss = again.logits[:, :, 0].detach().float()

    pairs = pair_costs(again.logits[:, :, :1].float().flatten(3), truth_BNK)
    target_BP11 = prompts.target_BP[..., None, None]
    cost_BP = pairs.cost_PMN.gather(3, target_BP11)[..., 0, 0]
    iou_BP = pairs.iou_PMN.gather(3, target_BP11)[..., 0, 0]
    is_real_BP = ~prompts.is_void_BP
    loss_BP = cost_BP + IOU_WEIGHT * (again.iou[..., 0].float() - iou_BP).square()
    return (loss_BP * is_real_BP).sum() / is_real_BP.sum().clamp(min=1), _mean(iou_BP[is_real_BP])


def _taken(logits_BPMss: Tensor, output_BP: Tensor) -> Tensor:
    """float32[B, P, s, s]: one output of each prompt, without gradient."""
    index = output_BP[..., None, None, None].expand(-1, -1, 1, *logits_BPMss.shape[-2:])
    return logits_BPMss.detach().float().gather(2, index)[:, :, 0]


def _mean(values: Tensor) -> float:
    return float(values.detach().mean()) if len(values) else float("nan")
