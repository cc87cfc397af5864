"""Fit the predicted-IoU head alone, last: `python -m maskmill.pipeline.train.nano.calibrate --weights IN --out OUT
[--samples 200]`.

While the masks still improve, predicted IoU lags behind them; and it filters, so it should be right about
the masks that ship. All other weights stand still, so the IoU token of every prompt is computed once, over
fresh samples (numbers that training doesn't reach), and the three-layer head is fitted to the IoUs of its
own masks. One sample in five is kept for choosing when to stop.

Shapes: P prompts of all samples together, C channels, M mask outputs.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from maskmill.pipeline.segmenters.student import load_student, save_student, stored_config
from maskmill.pipeline.train.decode import decode
from maskmill.pipeline.train.losses import iou_target, pair_costs
from maskmill.pipeline.train.nano.samples import Sample, SampleConfig, sample
from maskmill.pipeline.train.prompts import embed_tokens

FIRST_NUMBER = 2_000_000_000  # far beyond what training draws


@dataclass(frozen=True)
class Calibration:
    """Mean absolute error and bias of predicted IoU on the samples kept back, before and after."""

    prompts: int
    error_before: float
    error_after: float
    bias_before: float
    bias_after: float


@dataclass(frozen=True)
class _Tokens:
    token_PC: Tensor
    wanted_PM: Tensor
    kept_back_P: Tensor


@torch.no_grad()
def _tokens(sam: Sam, samples: Iterable[Sample]) -> _Tokens:
    """IoU tokens of all prompts, and the IoU their outputs have."""
    seen: list[Tensor] = []
    hook = sam.mask_decoder.iou_prediction_head.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    wanted, kept_back = [], []
    for i, one in enumerate(samples):
        image = torch.from_numpy(one.image_3SS)[None]
        coords, labels = torch.from_numpy(one.prompts.coords_PT2), torch.from_numpy(one.prompts.labels_PT)
        tokens = embed_tokens(sam.prompt_encoder, coords[None], labels[None], image.shape[-1])
        decoded = decode(sam, sam.image_encoder(image), tokens)
        pairs = pair_costs(decoded.logits[0].flatten(2), torch.from_numpy(one.targets_Nss).flatten(1))
        target_P, under_PN = torch.from_numpy(one.prompts.target_P), torch.from_numpy(one.under_PN)
        is_box_P, is_void_P = torch.from_numpy(one.prompts.is_box_P), torch.from_numpy(one.prompts.is_void_P)
        wanted.append(iou_target(pairs.iou_PMN, target_P, under_PN, is_box_P, is_void_P))
        kept_back.append(torch.full((len(target_P),), i % 5 == 4))
    hook.remove()
    return _Tokens(torch.cat(seen), torch.cat(wanted), torch.cat(kept_back))


def calibrate_iou(
    sam: Sam, samples: Iterable[Sample], *, steps: int = 600, lr: float = 1e-3, seed: int = 0
) -> Calibration:
    """Fit the predicted-IoU head of a student in place.

    Args:
        sam: the student, in evaluation mode; only `mask_decoder.iou_prediction_head` changes.
        samples: at least five, of one picture size.
        steps: of 256 prompts each.
        lr: highest learning rate of the head; it falls to zero.
        seed: of the order of prompts.

    Returns:
        Errors on the samples kept back. The head that was best on them is the one that stays, the old one
        included.

    Raises:
        ValueError: fewer than five samples.
    """
    tokens = _tokens(sam, samples)
    if not tokens.kept_back_P.any():
        raise ValueError("calibration got fewer than five samples; give at least five, hundreds for real use")
    head = sam.mask_decoder.iou_prediction_head
    before = _errors(head, tokens)
    best, best_state = before, copy.deepcopy(head.state_dict())
    fit = torch.nonzero(~tokens.kept_back_P)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        some = fit[torch.randint(len(fit), (256,), generator=generator)]
        loss = (head(tokens.token_PC[some]) - tokens.wanted_PM[some])[:, 1:].square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 49:
            now = _errors(head, tokens)
            if now[0] < best[0]:
                best, best_state = now, copy.deepcopy(head.state_dict())
    head.load_state_dict(best_state)
    return Calibration(len(tokens.wanted_PM), before[0], best[0], before[1], best[1])


@torch.no_grad()
def _errors(head: nn.Module, tokens: _Tokens) -> tuple[float, float]:
    """Mean absolute error and bias of the three multimask outputs, on the prompts kept back."""
    kept = tokens.kept_back_P
    difference = (head(tokens.token_PC[kept]) - tokens.wanted_PM[kept])[:, 1:]
    return float(difference.abs().mean()), float(difference.mean())


def calibration_samples(count: int, config: SampleConfig) -> Iterable[Sample]:
    """Samples of numbers that training doesn't reach, each from a scene of its own."""
    return (sample(FIRST_NUMBER + 2 * i, config) for i in range(count))


def main() -> None:
    """Read the command line, fit, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="a student's weights")
    parser.add_argument("--out", type=Path, required=True, help="where the calibrated ones go")
    parser.add_argument("--samples", type=int, default=200, help="pictures to look at")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sam = load_student(given.weights)
    config = SampleConfig(size=sam.image_encoder.img_size, prompts=40, photo_share=0.2, void_share=0.15)
    report = calibrate_iou(sam, calibration_samples(given.samples, config))
    save_student(sam, stored_config(given.weights), given.out, half=True)
    sys.stdout.write(f"{report}\n")


if __name__ == "__main__":
    main()
