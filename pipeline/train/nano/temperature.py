"""Give a student's mask logits their depth: probabilities that are right on average, masks that stay.

Focal loss leaves logits shallow: sigmoid(logit) says 0.7 where 0.95 is true, and stability scores, which ask
what happens one logit away, come out low for good masks too. All logits are multiplied by the one number that
makes the probabilities of the best answers likeliest. The number is folded into the last layers of the
hypernetworks, and its inverse into the first layer that takes a mask as a prompt: every mask, every
correction and predicted IoU stay what they were.

Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 4.2.

Shapes: P prompts, M mask outputs, K low-resolution cells.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.train.decode import decode
from maskmill.pipeline.train.losses import MULTIMASK, pair_costs
from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, draw_prompts
from maskmill.pipeline.train.pictures import Pictures
from maskmill.pipeline.train.prompts import embed_tokens

PROMPTS = PromptConfig(count=16, box_share=0.0, void_share=0.0)
FACTORS = tuple(1.15**power for power in range(-5, 16))  # 0.5 to 8
LEAST_IOU = 0.5


@torch.no_grad()
def deepen(sam: Sam, batches: Iterable[Pictures], *, seed: int = 0) -> float:
    """Set the depth of a student's mask logits in place.

    Args:
        sam: the student, in evaluation mode.
        batches: never trained on, on the student's device.
        seed: of prompts.

    Returns:
        What logits were multiplied by; 1 where no answer met its mask.
    """
    generator = torch.Generator(sam.device).manual_seed(seed)
    totals = torch.zeros(len(FACTORS), dtype=torch.float64)
    for pictures in batches:
        logits_RK, truth_RK = _best_answers(sam, pictures, generator)
        for number, factor in enumerate(FACTORS):
            cost = F.binary_cross_entropy_with_logits(factor * logits_RK, truth_RK, reduction="none")
            totals[number] += float(cost.mean(1).sum())
    factor = FACTORS[int(totals.argmin())] if float(totals.max()) > 0 else 1.0
    scale_logits(sam, factor)
    return factor


@torch.no_grad()
def scale_logits(sam: Sam, factor: float) -> None:
    """Multiply all mask logits, and take them as prompts as before.

    Args:
        sam: changed in place.
        factor: above 0.
    """
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        network.layers[-1].weight.mul_(factor)
        network.layers[-1].bias.mul_(factor)
    sam.prompt_encoder.mask_downscaling[0].weight.div_(factor)


def _best_answers(sam: Sam, pictures: Pictures, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits of each prompt's best output, and its mask, where they meet: float32[R, K] each."""
    prompts, truth_BNK = draw_prompts(pictures, PROMPTS, generator), pictures.shares_BNK()
    tokens = embed_tokens(sam.prompt_encoder, prompts.coords_BPT2, prompts.labels_BPT, pictures.side)
    decoded = decode(sam, sam.image_encoder(pictures.normalised()), tokens)
    logits_BPMK = decoded.logits[:, :, MULTIMASK].flatten(3)
    target_BP1 = prompts.target_BP[..., None]
    iou_BPMN = pair_costs(logits_BPMK, truth_BNK).iou_PMN
    iou_BPM = iou_BPMN.gather(3, target_BP1[..., None].expand(-1, -1, iou_BPMN.shape[2], -1))[..., 0]
    best_BP = iou_BPM.argmax(2)
    cells = truth_BNK.shape[-1]
    answer_BPK = logits_BPMK.gather(2, best_BP[..., None, None].expand(-1, -1, 1, cells))[:, :, 0]
    wanted_BPK = truth_BNK.gather(1, target_BP1.expand(-1, -1, cells))
    is_met_BP = iou_BPM.amax(2) >= LEAST_IOU
    return answer_BPK[is_met_BP], wanted_BPK[is_met_BP]
