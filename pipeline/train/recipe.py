"""SAM's training recipe for one image: simulated prompts over several rounds, its loss, what may learn.

    round 1      a random pixel of the mask, or its noised box, with equal chance; three outputs, and only the
                 best one's loss counts
    then         a pixel of the error of the output of highest predicted IoU, with that output's
                 unthresholded mask as prompt; the single-mask output answers. Two rounds bring no new point:
                 one at a random place among these, and the last: 1 + 8 + 2 = 11 rounds.
    loss         20 focal + 1 dice of the answering output, plus the squared error of its predicted IoU;
                 rounds are averaged, masks weighed by their quality

Images that a person did not finish label only what is in them: no output is held to be wrong for what it
finds elsewhere. So masks learn from their own prompts alone, predicted IoU of an output that isn't the best
one is left alone on such images (it may be a fine mask of something unlabelled), and crowd pixels count
nowhere. On a finished image every output learns its IoU with the best mask under the prompt.

Not SAM's, and off by default: an automatic mask is itself right to its expected IoU only, so predicted IoU
learns the answer's IoU with the mask times that (`iou_target`).

Masks are compared at the decoder's own resolution; a target there is the share of the cell that the mask
covers. Everything drawn for an image comes from its own generator, so that an image's loss depends on
neither its batch nor its worker.

Source: Kirillov et al., Segment Anything (2023), appendix A.

Shapes: P masks trained, N masks of the image, M outputs, s x s low-resolution cells, K of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import FirstPrompts, TrainImage, first_prompts, rounds_of
from maskmill.pipeline.train.decode import Decoded, decode
from maskmill.pipeline.train.losses import dice_of_sums
from maskmill.pipeline.train.prompts import BOX_START, PAD, embed_tokens

FOCAL_WEIGHT, DICE_WEIGHT, GAMMA = 20.0, 1.0, 2.0


@dataclass(frozen=True)
class ImageLoss:
    """An image's loss and what to log.

    Attributes:
        loss: scalar, differentiable.
        first_iou: mean IoU of the best of three outputs after the first prompt.
        last_iou: mean IoU of the last round's answer.
        iou_error: mean absolute error of predicted IoU where it is trained.
    """

    loss: Tensor
    first_iou: float
    last_iou: float
    iou_error: float


def image_loss(sam: Sam, embedding_1CHW: Tensor, image: TrainImage, settings: TrainSettings) -> ImageLoss:
    """The recipe's loss of one image.

    Args:
        sam: the model.
        embedding_1CHW: of the image, from its encoder.
        image: what it holds.
        settings: the recipe's.

    Returns:
        Loss and figures; all random choices are the image's number's and the settings' seed's.
    """
    rng = np.random.default_rng([settings.seed, image.number, 1])
    device, size = embedding_1CHW.device, image.image_3SS.shape[-1]
    cells, coords, labels = _asked(rng, image, embedding_1CHW, settings)
    kinds = rounds_of(rng, settings)
    stride = size // (4 * embedding_1CHW.shape[-1])

    # One prompt, three outputs
    decoded = _decode(sam, settings, embedding_1CHW, embed_tokens(sam.prompt_encoder, coords, labels, size))
    first = _first_round(decoded, cells, image.complete, settings)
    losses, answer = [first.loss], first

    # Corrections, and rounds without a new point
    for with_point in kinds:
        if with_point:
            point, label = _correction(rng, answer.logits_PK, cells, stride)
            coords = torch.cat([coords, point.to(device)[None]], dim=2)
            labels = torch.cat([labels, label.to(device)[None]], dim=2)

        # The last answer goes in as a mask
        shape = (1, len(cells.weight_P), 1, *decoded.logits.shape[-2:])
        prior = answer.logits_PK.detach().view(shape)
        dense = sam.prompt_encoder.mask_downscaling(prior.flatten(0, 1)).unflatten(0, shape[:2])
        tokens = embed_tokens(sam.prompt_encoder, coords, labels, size)
        decoded = _decode(sam, settings, embedding_1CHW, tokens, dense)
        answer = _later_round(decoded, cells, settings)
        losses.append(answer.loss)

    loss = torch.stack(losses).mean()
    return ImageLoss(loss, float(first.iou), float(answer.iou), float(answer.iou_error))


@dataclass(frozen=True, eq=False)
class FirstAnswers:
    """What a model says of its answers to an image's first prompts, and what these are worth.

    Attributes:
        token_PC: float32[P, C], what predicted IoU is told from.
        worth_PM: float32[P, 3], IoU with the mask that the prompt was drawn from, times what that is worth.
        weight_P: float32[P], of that mask.
    """

    token_PC: NDArray[np.float32]
    worth_PM: NDArray[np.float32]
    weight_P: NDArray[np.float32]


@torch.no_grad()
def first_answers(sam: Sam, image: TrainImage, settings: TrainSettings) -> FirstAnswers:
    """Asks an image as the first round does.

    Args:
        sam: the model, in evaluation mode.
        image: what it holds.
        settings: the recipe's.
    """
    pixels_13SS = torch.from_numpy(image.image_3SS)[None].to(next(sam.parameters()).device)
    embedding = sam.image_encoder(pixels_13SS)
    rng = np.random.default_rng([settings.seed, image.number, 1])
    cells, coords, labels = _asked(rng, image, embedding, settings)
    seen: list[Tensor] = []
    hook = sam.mask_decoder.iou_prediction_head.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    decoded = decode(sam, embedding, embed_tokens(sam.prompt_encoder, coords, labels, pixels_13SS.shape[-1]))
    hook.remove()
    own_PM = cell_iou_own(decoded.logits[0, :, 1:].float().flatten(2), cells)
    worth_PM = own_PM * cells.right_P[:, None]
    token_PC = seen[0].float().view(len(worth_PM), -1)
    return FirstAnswers(token_PC.cpu().numpy(), worth_PM.cpu().numpy(), cells.weight_P.cpu().numpy())


def _asked(
    rng: np.random.Generator, image: TrainImage, embedding_1CHW: Tensor, settings: TrainSettings
) -> tuple[_Cells, Tensor, Tensor]:
    """What round 1 asks of an image: its cells, and the tokens' places [1, P, T, 2] and labels [1, P, T]."""
    device, prompts = embedding_1CHW.device, first_prompts(rng, image, settings)
    cells = _Cells.of(image, prompts, image.image_3SS.shape[-1] // (4 * embedding_1CHW.shape[-1]), device)
    coords, labels = torch.from_numpy(prompts.coords_PT2), torch.from_numpy(prompts.labels_PT)
    return cells, coords[None].to(device), labels[None].to(device)


def _decode(sam: Sam, settings: TrainSettings, *given: Tensor) -> Decoded:
    """A round's decoding, its activations kept or to be made again."""
    if not settings.checkpointing:
        return decode(sam, *given)
    again: Decoded = checkpoint(decode, sam, *given, use_reentrant=False)
    return again


@dataclass(frozen=True, eq=False)
class _Cells:
    """Targets at low resolution.

    Attributes:
        target_PK: float32[P, K], 0..1.
        all_NK: float32[N, K], of all masks of the image.
        under_PN: bool[P, N], masks that hold the prompt's point; a box's own alone.
        weight_P: float32[P].
        counts_K: float32[K], 1 where the cell counts.
        right_P, right_N: float32[P] and float32[N], expected IoU of the masks themselves; 1 of a person's.
    """

    target_PK: Tensor
    all_NK: Tensor
    under_PN: Tensor
    weight_P: Tensor
    counts_K: Tensor
    right_P: Tensor
    right_N: Tensor

    @classmethod
    def of(cls, image: TrainImage, prompts: FirstPrompts, stride: int, device: torch.device) -> _Cells:
        """What an image's prompts should get, at `stride` px a cell, on a device."""
        side = image.masks_NSS.shape[1] // stride
        tiles = image.masks_NSS.reshape(-1, side, stride, side, stride)  # no float copy at full size
        all_NK = torch.from_numpy(tiles.mean((2, 4), dtype=np.float32)).flatten(1)
        inside = np.zeros(image.image_3SS.shape[1:], np.float32)
        inside[: image.height, : image.width] = 1
        if image.counts_SS is not None:
            inside *= image.counts_SS
        counts_K = (F.avg_pool2d(torch.from_numpy(inside)[None, None], stride) > 0.5).float().flatten()
        right_N = torch.ones(len(all_NK)) if image.right_N is None else torch.from_numpy(image.right_N)
        x, y = prompts.coords_PT2[:, 0].astype(int).T
        is_box_P = prompts.labels_PT[:, 0] == BOX_START
        under_PN = image.masks_NSS[:, y, x].T & ~is_box_P[:, None]
        under_PN[np.arange(len(prompts.target_P)), prompts.target_P] = True
        return cls(
            all_NK[prompts.target_P].to(device),
            all_NK.to(device),
            torch.from_numpy(under_PN).to(device),
            torch.from_numpy(image.weight_N[prompts.target_P]).to(device),
            counts_K.to(device),
            right_N[prompts.target_P].to(device),
            right_N.to(device),
        )


@dataclass(frozen=True, eq=False)
class _Answer:
    """A round: its loss, the logits that the next round is corrected from, figures."""

    loss: Tensor
    logits_PK: Tensor
    iou: Tensor
    iou_error: Tensor


def mask_losses(logits_PMK: Tensor, target_PK: Tensor, counts_K: Tensor, alpha: float | None) -> Tensor:
    """20 focal + dice of every output against its mask.

    Args:
        logits_PMK: float32[P, M, K].
        target_PK: float32[P, K], 0..1.
        counts_K: float32[K], 1 where a cell counts; others change nothing.
        alpha: weight of object pixels in the focal loss, 1 - alpha of others; None is 1 for both.

    Returns:
        float32[P, M].

    Source: Lin et al., Focal Loss (2017), gamma 2; Milletari et al., V-Net (2016), with 1 added above and
    below; their ratio is Segment Anything's, appendix A.
    """
    target = target_PK[:, None].expand_as(logits_PMK)
    probability = torch.sigmoid(logits_PMK)
    entropy = F.binary_cross_entropy_with_logits(logits_PMK, target, reduction="none")
    right = probability * target + (1 - probability) * (1 - target)
    focal = entropy * (1 - right).pow(GAMMA)
    if alpha is not None:
        focal = focal * (alpha * target + (1 - alpha) * (1 - target))
    focal_PM = (focal * counts_K).sum(-1) / counts_K.sum().clamp(min=1)
    overlap = (probability * target * counts_K).sum(-1)
    sizes = ((probability + target) * counts_K).sum(-1)
    dice_PM = dice_of_sums(overlap, sizes)
    return FOCAL_WEIGHT * focal_PM + DICE_WEIGHT * dice_PM


@torch.no_grad()
def cell_iou(logits_PMK: Tensor, masks_NK: Tensor, counts_K: Tensor) -> Tensor:
    """IoU of every output, cut at 0, with every mask, over cells that count: float32[P, M, N]."""
    answer, truth = (logits_PMK > 0) * counts_K, (masks_NK > 0.5) * counts_K
    common = answer @ truth.T
    iou: Tensor = common / (answer.sum(-1, keepdim=True) + truth.sum(-1) - common).clamp(min=1)
    return iou


def _first_round(decoded: Decoded, cells: _Cells, complete: bool, settings: TrainSettings) -> _Answer:
    """Three outputs (one for a box too, as three serve any single prompt): the best one learns."""
    logits_PMK = decoded.logits[0, :, 1:].float().flatten(2)
    predicted_PM = decoded.iou[0, :, 1:].float()
    losses_PM = mask_losses(logits_PMK, cells.target_PK, cells.counts_K, settings.focal_alpha)
    rows, best_P = torch.arange(len(losses_PM), device=losses_PM.device), losses_PM.argmin(1)
    iou_PMN = cell_iou(logits_PMK, cells.all_NK, cells.counts_K)
    any_PM = (iou_PMN * (cells.under_PN * cells.right_N)[:, None]).amax(-1)
    own_PM = cell_iou_own(logits_PMK, cells)
    error_PM = predicted_PM - (any_PM if complete else own_PM * cells.right_P[:, None])
    taught_PM = torch.ones_like(error_PM) if complete else F.one_hot(best_P, error_PM.shape[1]).float()
    iou_loss_P = (error_PM.square() * taught_PM).sum(1) / taught_PM.sum(1)
    loss = (cells.weight_P * (losses_PM[rows, best_P] + iou_loss_P)).mean()
    chosen_P = predicted_PM.argmax(1)
    return _Answer(
        loss, logits_PMK[rows, chosen_P], own_PM.amax(1).mean(), (error_PM.abs() * taught_PM).mean().detach()
    )


def _later_round(decoded: Decoded, cells: _Cells, settings: TrainSettings) -> _Answer:
    """The single-mask output answers."""
    logits_PMK = decoded.logits[0, :, :1].float().flatten(2)
    losses_P = mask_losses(logits_PMK, cells.target_PK, cells.counts_K, settings.focal_alpha)[:, 0]
    own_P = cell_iou_own(logits_PMK, cells)[:, 0]
    error_P = decoded.iou[0, :, 0].float() - own_P * cells.right_P
    loss = (cells.weight_P * (losses_P + error_P.square())).mean()
    return _Answer(loss, logits_PMK[:, 0], own_P.mean(), error_P.abs().mean().detach())


@torch.no_grad()
def cell_iou_own(logits_PMK: Tensor, cells: _Cells) -> Tensor:
    """IoU of every output with its own mask: float32[P, M]."""
    answer, truth = (logits_PMK > 0) * cells.counts_K, ((cells.target_PK > 0.5) * cells.counts_K)[:, None]
    common = (answer * truth).sum(-1)
    iou: Tensor = common / (answer.sum(-1) + truth.sum(-1) - common).clamp(min=1)
    return iou


def _correction(
    rng: np.random.Generator, logits_PK: Tensor, cells: _Cells, stride: int
) -> tuple[Tensor, Tensor]:
    """A cell of each answer's error, drawn evenly: its centre as a point [P, 1, 2], its label [P, 1].

    Foreground where the answer misses, background where it spills; a pixel of the mask where there is no
    error.
    """
    truth = (cells.target_PK > 0.5).cpu().numpy()
    wrong = (((logits_PK.detach() > 0).cpu().numpy()) != truth) & (cells.counts_K > 0).cpu().numpy()
    side = int(np.sqrt(truth.shape[1]))
    points, labels = np.zeros((len(truth), 1, 2), np.float32), np.zeros((len(truth), 1), np.int64)
    for i, (error_K, truth_K) in enumerate(zip(wrong, truth, strict=True)):
        among = np.flatnonzero(error_K) if error_K.any() else np.flatnonzero(truth_K)
        if not len(among):  # thinner than half a cell everywhere, and so is the answer
            labels[i, 0] = PAD
            continue
        cell = int(among[rng.integers(len(among))])
        points[i, 0] = np.array([cell % side, cell // side]) * stride + (stride - 1) / 2
        labels[i, 0] = int(truth_K[cell])
    return torch.from_numpy(points), torch.from_numpy(labels)
