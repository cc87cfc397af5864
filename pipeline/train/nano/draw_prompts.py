"""First prompts and corrections drawn from a batch of pictures' masks, on the device that holds them.

Everything is decided on the low-resolution cells that losses see: a point is a pixel of a cell that its
mask covers by more than half. "Deep" is the cell whose surroundings, of four sizes, hold the most of the
mask: next to the maximum of a distance transform, and made of convolutions.

Shapes: B pictures, P prompts, T tokens a prompt, N masks, R regions, s cells a side, K = s x s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.train.pictures import Pictures
from maskmill.pipeline.train.prompts import BACKGROUND, BOX_END, BOX_START, FOREGROUND, PAD

SURROUNDINGS = (3, 7, 15, 31)  # cells a side
BOX_NOISES = (0.02, 0.1)  # of a box's side; SAM's is the second
MOST_NOISE_PX = 20.0


@dataclass(frozen=True, eq=False)
class FirstPrompts:
    """Two tokens a prompt.

    Attributes:
        coords_BPT2: float32, (x, y) in pixels of the padded input.
        labels_BPT: int64.
        target_BP: int64, the mask each was drawn from.
        is_box_BP: bool.
        is_void_BP: bool, points where no mask is and nothing is to be found.
        under_BPN: bool, masks under each point; none for boxes.
    """

    coords_BPT2: Tensor
    labels_BPT: Tensor
    target_BP: Tensor
    is_box_BP: Tensor
    is_void_BP: Tensor
    under_BPN: Tensor


@dataclass(frozen=True)
class PromptConfig:
    """What first prompts are like.

    Attributes:
        count: a picture.
        box_share: chance of a noised box.
        deep_share: chance of the deepest point; any point of the mask otherwise.
        void_share: chance of a point outside all masks, in pictures where it is known that nothing is there.
    """

    count: int = 8
    box_share: float = 0.3
    deep_share: float = 0.35
    void_share: float = 0.07


def draw_prompts(pictures: Pictures, config: PromptConfig, generator: torch.Generator) -> FirstPrompts:
    """Draws masks, every one of a picture before any twice, and a prompt from each.

    Args:
        pictures: each with at least one mask that covers a cell by more than half.
        config: what kinds.
        generator: of their device.
    """
    solid_BNss = pictures.solid_BNss()
    batch, count = len(pictures), config.count
    target_BP = _targets(solid_BNss, count, generator)
    own_BPss = solid_BNss[torch.arange(batch, device=target_BP.device)[:, None], target_BP]

    # What each prompt is: a box, a deep point, a point
    kind_BP = _draw(generator, batch, count)
    is_box_BP = kind_BP < config.box_share
    is_deep_BP = (kind_BP >= config.box_share) & (kind_BP < config.box_share + config.deep_share)

    # Some points go where nothing is
    void_Bss = ~(pictures.cells_BNss > 0).any(1) & pictures.inside_BSS()[:, ::2, ::2]
    has_void_B = pictures.is_void_known_B & (void_Bss.float().mean((1, 2)) > 0.05)
    is_void_BP = (_draw(generator, batch, count) < config.void_share) & has_void_B[:, None]
    is_box_BP = is_box_BP & ~is_void_BP

    # Where the points are, and all masks under them
    region_BPss = torch.where(is_void_BP[..., None, None], void_Bss[:, None], own_BPss)
    cell_BP = points_in(region_BPss.flatten(0, 1), (is_deep_BP & ~is_void_BP).flatten(), generator)
    cell_BP = cell_BP.view(batch, count)
    under_BPN = (
        solid_BNss.flatten(2)
        .transpose(1, 2)
        .gather(1, cell_BP[..., None].expand(-1, -1, solid_BNss.shape[1]))
    )

    # Points and boxes as SAM's corner tokens
    point_BP2 = _pixels(cell_BP, solid_BNss.shape[-1], generator)
    box_BP4 = _noised_boxes(own_BPss, pictures.size_B2, generator)
    coords_BPT2 = torch.stack([point_BP2, torch.zeros_like(point_BP2)], dim=2)
    coords_BPT2 = torch.where(is_box_BP[..., None, None], box_BP4.view(batch, count, 2, 2), coords_BPT2)
    labels_BPT = torch.tensor([FOREGROUND, PAD], device=cell_BP.device).expand(batch, count, 2)
    corners = torch.tensor([BOX_START, BOX_END], device=cell_BP.device)
    labels_BPT = torch.where(is_box_BP[..., None], corners, labels_BPT)

    return FirstPrompts(
        coords_BPT2, labels_BPT, target_BP, is_box_BP, is_void_BP, under_BPN & ~is_box_BP[..., None]
    )


def correct(
    logits_BPss: Tensor, truth_BPss: Tensor, generator: torch.Generator, deep_share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """A point in each answer's error: foreground where it misses, background where it spills.

    Args:
        logits_BPss: float, the answers so far.
        truth_BPss: bool, what they should be, none empty.
        generator: of their device.
        deep_share: chance of the error's deepest point; any of its points otherwise.

    Returns:
        float32[B, P, 2], (x, y) in pixels, and labels int64[B, P]; a point of the truth where there is no
        error.
    """
    error_BPss = (logits_BPss > 0) != truth_BPss
    is_right_BP = ~error_BPss.flatten(2).any(2)
    region_BPss = torch.where(is_right_BP[..., None, None], truth_BPss, error_BPss)
    flat_Rss = region_BPss.flatten(0, 1)
    is_deep_R = _draw(generator, len(flat_Rss)) < deep_share
    cell_BP = points_in(flat_Rss, is_deep_R, generator).view(is_right_BP.shape)
    hit_BP = truth_BPss.flatten(2).gather(2, cell_BP[..., None])[..., 0]
    labels_BP = torch.where(hit_BP, FOREGROUND, BACKGROUND)
    return _pixels(cell_BP, truth_BPss.shape[-1], generator), labels_BP


def points_in(region_Rss: Tensor, is_deep_R: Tensor, generator: torch.Generator) -> Tensor:
    """A cell of each region, any or its deepest: int64[R].

    Args:
        region_Rss: bool, none empty.
        is_deep_R: bool.
        generator: of their device.
    """
    cell_R = torch.multinomial(region_Rss.flatten(1).float(), 1, generator=generator)[:, 0]
    rows = torch.nonzero(is_deep_R)[:, 0]
    if len(rows):
        cell_R[rows] = deepest(region_Rss[rows])
    return cell_R


def deepest(region_Rss: Tensor) -> Tensor:
    """The cell whose surroundings hold the most of its region, the picture's outside counting as none."""
    inside_R1ss = region_Rss[:, None].float()
    depth_R1ss = sum(
        F.avg_pool2d(F.avg_pool2d(inside_R1ss, (1, k), 1, (0, k // 2)), (k, 1), 1, (k // 2, 0))
        for k in SURROUNDINGS
    )
    assert isinstance(depth_R1ss, Tensor)
    return torch.where(region_Rss, depth_R1ss[:, 0], -1.0).flatten(1).argmax(1)


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _targets(solid_BNss: Tensor, count: int, generator: torch.Generator) -> Tensor:
    is_real_BN = solid_BNss.flatten(2).any(2)
    order_BN = (_draw(generator, *is_real_BN.shape) + is_real_BN).argsort(dim=1, descending=True)
    place_BP = torch.arange(count, device=order_BN.device) % is_real_BN.sum(1, keepdim=True)
    return order_BN.gather(1, place_BP)


def _pixels(cell_BP: Tensor, cells_a_side: int, generator: torch.Generator) -> Tensor:
    """A pixel of each cell, as (x, y)."""
    corner = torch.randint(0, 2, (*cell_BP.shape, 2), generator=generator, device=generator.device)
    return 2.0 * torch.stack([cell_BP % cells_a_side, cell_BP // cells_a_side], dim=-1) + corner


def _noised_boxes(own_BPss: Tensor, size_B2: Tensor, generator: torch.Generator) -> Tensor:
    """float32[B, P, 4], x0, y0, x1, y1 in pixels: sides moved by normal noise, kept in the picture."""
    sides = []
    for axis in (2, 3):  # columns, then rows
        has = own_BPss.any(axis).int()
        first, last = has.argmax(-1), has.shape[-1] - 1 - has.flip(-1).argmax(-1)
        sides += [2.0 * first, 2.0 * last + 1]
    x0, x1, y0, y1 = sides
    box_BP4 = torch.stack([x0, y0, x1, y1], dim=-1)
    length_BP4 = (box_BP4[..., 2:] - box_BP4[..., :2] + 1).repeat(1, 1, 2)
    noises = torch.tensor(BOX_NOISES, device=box_BP4.device)
    kind_BP1 = torch.randint(0, 2, (*box_BP4.shape[:2], 1), generator=generator, device=generator.device)
    drawn = torch.randn(box_BP4.shape, generator=generator, device=generator.device)
    moved = (drawn * noises[kind_BP1] * length_BP4).clamp(-MOST_NOISE_PX, MOST_NOISE_PX)
    most_B14 = (size_B2.flip(1) - 1).repeat(1, 2)[:, None]
    return torch.minimum((box_BP4 + moved).clamp(min=0), most_B14.float())
