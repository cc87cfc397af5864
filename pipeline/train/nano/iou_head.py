"""Fit the predicted-IoU head alone, after training and before the calibration curve.

All other weights stand still, so the IoU token of every prompt is computed once, over fresh pictures, and the
three-layer head is fitted to the IoUs that its own masks have. One batch in five is kept for choosing when to
stop; if nothing there is better than the head was, it stays as it was.

Shapes: R prompts of all pictures together, C channels, M mask outputs, N masks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.train.decode import decode
from maskmill.pipeline.train.losses import MULTIMASK, iou_target, pair_costs
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, draw_prompts
from maskmill.pipeline.train.pictures import Pictures
from maskmill.pipeline.train.prompts import embed_tokens

PROMPTS = PromptConfig(count=24, box_share=0.1, deep_share=0.25, void_share=0.1)
KEEP_EVERY = 5
BATCH = 256


@dataclass(frozen=True)
class HeadFit:
    """Mean squared error of predicted IoU on the prompts kept back, before and after."""

    prompts: int
    error_before: float
    error_after: float


@dataclass(frozen=True)
class _Tokens:
    token_RC: Tensor
    wanted_RM: Tensor
    is_kept_R: Tensor


def fit_iou_head(
    sam: Sam, batches: Iterable[Pictures], *, steps: int = 500, lr: float = 1e-3, seed: int = 0
) -> HeadFit:
    """Fit the predicted-IoU head of a student in place.

    Args:
        sam: the student, in evaluation mode; only `mask_decoder.iou_prediction_head` changes.
        batches: at least five, on the student's device.
        steps: of 256 prompts each.
        lr: highest learning rate of the head; it falls to zero.
        seed: of prompts and their order.

    Returns:
        Errors on the batches kept back.

    Raises:
        ValueError: fewer than five batches.
    """
    generator = torch.Generator(sam.device).manual_seed(seed)
    tokens = _tokens(sam, batches, generator)
    head = sam.mask_decoder.iou_prediction_head
    before = _error(head, tokens)
    best, best_state = before, copy.deepcopy(head.state_dict())
    fit_F = torch.nonzero(~tokens.is_kept_R)[:, 0]
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        place = torch.randint(len(fit_F), (BATCH,), generator=generator, device=generator.device)
        some = fit_F[place]
        loss = F.mse_loss(head(tokens.token_RC[some])[:, MULTIMASK], tokens.wanted_RM[some][:, MULTIMASK])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 25 == 24 and (now := _error(head, tokens)) < best:
            best, best_state = now, copy.deepcopy(head.state_dict())
    head.load_state_dict(best_state)
    return HeadFit(len(tokens.wanted_RM), before, best)


@torch.no_grad()
def _tokens(sam: Sam, batches: Iterable[Pictures], generator: torch.Generator) -> _Tokens:
    """IoU tokens of all prompts, and the IoU that their outputs have."""
    seen: list[Tensor] = []
    hook = sam.mask_decoder.iou_prediction_head.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )

    # Fresh pictures: the tokens seen, the IoUs that are true
    wanted, kept = [], []
    for number, pictures in enumerate(batches):
        prompts = draw_prompts(pictures, PROMPTS, generator)
        tokens = embed_tokens(sam.prompt_encoder, prompts.coords_BPT2, prompts.labels_BPT, pictures.side)
        decoded = decode(sam, sam.image_encoder(pictures.normalised()), tokens)
        iou_RMN = pair_costs(decoded.logits.flatten(3), pictures.shares_BNK()).iou_PMN.flatten(0, 1)
        target_R, under_RN = prompts.target_BP.flatten(), prompts.under_BPN.flatten(0, 1)
        is_box_R, is_void_R = prompts.is_box_BP.flatten(), prompts.is_void_BP.flatten()
        wanted.append(iou_target(iou_RMN, target_R, under_RN, is_box_R, is_void_R))
        kept.append(torch.full_like(is_box_R, number % KEEP_EVERY == KEEP_EVERY - 1))

    hook.remove()
    if len(wanted) < KEEP_EVERY:
        raise ValueError(
            f"{len(wanted)} batches to fit a head: give at least {KEEP_EVERY}, dozens for real use"
        )
    return _Tokens(torch.cat(seen), torch.cat(wanted), torch.cat(kept))


@torch.no_grad()
def _error(head: nn.Module, tokens: _Tokens) -> float:
    kept = tokens.is_kept_R
    return float(F.mse_loss(head(tokens.token_RC[kept])[:, MULTIMASK], tokens.wanted_RM[kept][:, MULTIMASK]))
