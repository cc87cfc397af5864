"""EdgeSAM's distillation: first the encoder alone, then with prompts in the loop.

    encoder   the student's embedding follows the teacher's, by mean squared error; where widths or grids
              differ, through a projection that is thrown away afterwards
    prompts   teacher and student decode the same point or box. The student's masks follow the teacher's,
              binarised, by BCE and dice; then a point is drawn where the two disagree, labelled by the
              teacher, added, and both decode again. Losses of the rounds are summed.

The student's decoder and prompt encoder start as the teacher's where their shapes agree. EdgeSAM leaves
predicted IoU out and warns that it may be unreliable: here it filters masks, so it is trained too, towards
the teacher's predicted IoU times the IoU of the student's mask with the teacher's.

Source: Zhou et al., EdgeSAM: Prompt-In-the-Loop Distillation for SAM (2023), sections 3.1 and 3.2.

Shapes: P prompts, T tokens a prompt, M outputs, s x s the student's low-resolution cells, K of them together.
"""

from __future__ import annotations

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings.train import DistillSettings, TrainSettings
from maskmill.pipeline.train.asked import TrainImage, first_prompts
from maskmill.pipeline.train.decode import decode
from maskmill.pipeline.train.losses import dice_loss
from maskmill.pipeline.train.prompts import embed_tokens

STUDENTS = {
    "nano": StudentConfig(),
    "tiny": StudentConfig(widths=(24, 48, 96, 96), depths=(1, 1, 2, 1)),
}
"""Shapes of students by name: nano's own, and one of about a quarter of its encoder."""


def start_student(config: StudentConfig, teacher: Sam, seed: int) -> Sam:
    """A fresh student with the teacher's decoder and prompt encoder, as far as shapes agree.

    Args:
        config: the student's shape.
        teacher: of any input size.
        seed: of the fresh weights.

    Returns:
        The student, in training mode.
    """
    torch.manual_seed(seed)
    student = build_student(config)
    own, given = student.state_dict(), teacher.state_dict()
    taken = {
        name: value
        for name, value in given.items()
        if not name.startswith("image_encoder.") and name in own and own[name].shape == value.shape
    }
    student.load_state_dict({**own, **taken})
    return student.train()


class Projection(nn.Module):
    """The student's embedding at the teacher's width and grid; nothing where both agree."""

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        same = student_dim == teacher_dim
        self.widen: nn.Module = nn.Identity() if same else nn.Conv2d(student_dim, teacher_dim, 1)

    def forward(self, embedding_BCHW: Tensor, grid: int) -> Tensor:
        """float[B, C', grid, grid] at the teacher's width."""
        wide: Tensor = self.widen(embedding_BCHW)
        if wide.shape[-1] == grid:
            return wide
        return F.interpolate(wide, (grid, grid), mode="bilinear", align_corners=False)


def encoder_loss(projected_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Mean squared error of the embeddings."""
    return F.mse_loss(projected_BCHW, teacher_BCHW)


def prompt_loss(
    teacher: Sam,
    student: Sam,
    teacher_1CHW: Tensor,
    student_1CHW: Tensor,
    image: TrainImage,
    settings: DistillSettings,
) -> Tensor:
    """The loss of one image's prompts, summed over the rounds.

    Args:
        teacher, student: the models.
        teacher_1CHW, student_1CHW: their embeddings of the image, each at its own input size.
        image: at the student's input size.
        settings: of the distillation.

    Returns:
        Scalar; gradients flow into the student alone.
    """
    rng = np.random.default_rng([settings.seed, image.number, 5])
    size = image.image_3SS.shape[-1]

    # The first prompts, drawn by the image alone
    asked = TrainSettings(masks=settings.masks, box_share=settings.box_share)
    prompts = first_prompts(rng, image, asked)
    device = student_1CHW.device
    coords = torch.from_numpy(prompts.coords_PT2)[None].to(device)
    labels = torch.from_numpy(prompts.labels_PT)[None].to(device)

    losses = []
    for number in range(settings.rounds):
        outputs = slice(1, 4) if number == 0 else slice(0, 1)
        with torch.no_grad():
            wanted, wanted_iou = _decoded(teacher, teacher_1CHW, coords, labels, size, outputs)
        got, got_iou = _decoded(student, student_1CHW, coords, labels, size, outputs)

        side = got.shape[-1]
        if wanted.shape[-1] != side:
            wanted = F.interpolate(wanted, (side, side), mode="bilinear", align_corners=False)
        losses.append(_round_loss(got, got_iou, wanted > 0, wanted_iou, settings.iou_weight))

        # A point where the two disagree
        if number + 1 < settings.rounds:
            best_P = wanted_iou.argmax(1)
            rows = torch.arange(len(best_P), device=device)
            point, label = _disagreement(rng, got[rows, best_P] > 0, wanted[rows, best_P] > 0, size)
            coords = torch.cat([coords, point.to(device)[None]], dim=2)
            labels = torch.cat([labels, label.to(device)[None]], dim=2)

    return torch.stack(losses).sum()


def _decoded(
    sam: Sam, embedding_1CHW: Tensor, coords: Tensor, labels: Tensor, size: int, outputs: slice
) -> tuple[Tensor, Tensor]:
    """Logits [P, M, s, s] and predicted IoU [P, M]; coordinates are of a padded input of `size` px."""
    own = int(sam.image_encoder.img_size)
    scaled = (coords + 0.5) * (own / size) - 0.5
    found = decode(sam, embedding_1CHW, embed_tokens(sam.prompt_encoder, scaled, labels, own))
    return found.logits[0, :, outputs].float(), found.iou[0, :, outputs].float()


def _round_loss(
    got: Tensor, got_iou: Tensor, wanted: Tensor, wanted_iou: Tensor, iou_weight: float
) -> Tensor:
    logits_PMK, target_PMK = got.flatten(2), wanted.flatten(2).float()
    bce = F.binary_cross_entropy_with_logits(logits_PMK, target_PMK)
    dice = dice_loss(torch.sigmoid(logits_PMK), target_PMK)
    with torch.no_grad():
        answer = (logits_PMK > 0).float()
        common = (answer * target_PMK).sum(-1)
        iou_PM = common / (answer.sum(-1) + target_PMK.sum(-1) - common).clamp(min=1)
    iou_loss = (got_iou - wanted_iou.clamp(0, 1) * iou_PM).square().mean()
    return bce + dice.mean() + iou_weight * iou_loss


def _disagreement(
    rng: np.random.Generator, got_Pss: Tensor, wanted_Pss: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """A cell where two masks differ, as a point [P, 1, 2] with the teacher's label [P, 1]; padding where none
    does."""
    got, wanted = got_Pss.cpu().numpy(), wanted_Pss.cpu().numpy()
    side = got.shape[-1]
    stride = size / side
    points, labels = np.zeros((len(got), 1, 2), np.float32), np.full((len(got), 1), -1, np.int64)
    for i, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        among = np.flatnonzero(ours != theirs)
        if len(among):
            cell = int(among[rng.integers(len(among))])
            points[i, 0] = (np.array([cell % side, cell // side]) + 0.5) * stride - 0.5
            labels[i, 0] = int(theirs.flat[cell])
    return torch.from_numpy(points), torch.from_numpy(labels)
