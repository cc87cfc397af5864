"""Simulated prompts: points and boxes drawn from masks, corrections drawn from errors, and their embedding.

A prompt's tokens are coordinates with labels: -1 padding, 0 background point, 1 foreground point, 2 and 3
box corners, as segment_anything's PromptEncoder numbers them.

Shapes: P prompts, T tokens a prompt, 2 is (x, y), N masks, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from segment_anything.modeling import PromptEncoder
from torch import Tensor

PAD, BACKGROUND, FOREGROUND, BOX_START, BOX_END = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class Prompts:
    """First prompts for one image, two tokens each.

    Attributes:
        coords_PT2: float32[P, 2, 2], (x, y) in pixels of the padded input.
        labels_PT: int64[P, 2].
        target_P: int64[P], the mask each was drawn from.
        is_box_P: bool[P].
        is_void_P: bool[P], points on what no mask covers: nothing there is to be found.
    """

    coords_PT2: NDArray[np.float32]
    labels_PT: NDArray[np.int64]
    target_P: NDArray[np.int64]
    is_box_P: NDArray[np.bool_]
    is_void_P: NDArray[np.bool_]


def centre_point(mask_HW: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel deepest inside a mask: the maximum of its distance transform, the image border counting as
    outside.

    Args:
        mask_HW: bool[H, W], not empty.

    Returns:
        (x, y).

    Raises:
        ValueError: an empty mask.
    """
    if not mask_HW.any():
        raise ValueError("an empty mask has no centre; drop empty masks first")
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    cut = np.pad(mask_HW[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1], 1)
    depth = ndimage.distance_transform_edt(cut)
    y, x = divmod(int(np.argmax(depth)), cut.shape[1])
    return int(cols[0]) + x - 1, int(rows[0]) + y - 1


def random_point(rng: np.random.Generator, mask_HW: NDArray[np.bool_]) -> tuple[int, int]:
    """A pixel of the mask, all equally likely; (x, y)."""
    index = np.flatnonzero(mask_HW)
    y, x = divmod(int(index[rng.integers(len(index))]), mask_HW.shape[1])
    return x, y


def noised_box(
    rng: np.random.Generator, mask_HW: NDArray[np.bool_], share: float = 0.1, most_px: float = 20
) -> list[float]:
    """The mask's box, each side moved by noise of 10 % of the box's side, at most 20 px; (x0, y0, x1, y1)."""
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    box = np.array([cols[0], rows[0], cols[-1], rows[-1]], dtype=np.float64)
    side = np.tile(box[2:] - box[:2] + 1, 2)
    box += np.clip(rng.normal(0, 1, 4) * share * side, -most_px, most_px)
    height, width = mask_HW.shape
    clipped: list[float] = np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1]).tolist()
    return clipped


def first_prompts(
    rng: np.random.Generator,
    masks_NHW: NDArray[np.bool_],
    count: int,
    box_share: float = 0.2,
    centre_share: float = 0.4,
    void_share: float = 0.0,
) -> Prompts:
    """Draw masks at random and a point or box from each, and a few points from what no mask covers.

    Args:
        rng: consumed.
        masks_NHW: bool[N, H, W], N at least 1, none empty.
        count: prompts to draw; every mask comes once before any comes twice.
        box_share: chance of a noised box.
        centre_share: chance of the deepest point; a uniform point of the mask otherwise.
        void_share: share of the prompts, the last, that are points outside all masks, where there's room.

    Returns:
        The prompts.
    """
    order = [rng.permutation(len(masks_NHW)) for _ in range(-(-count // len(masks_NHW)))]
    target_P = np.concatenate(order)[:count].astype(np.int64)
    coords = np.zeros((count, 2, 2), np.float32)
    labels = np.full((count, 2), PAD, np.int64)
    kind_P = rng.random(count)

    # A box, the deepest point or any point of each mask
    for i, target in enumerate(target_P):
        mask_HW = masks_NHW[target]
        if kind_P[i] < box_share:
            coords[i] = np.reshape(noised_box(rng, mask_HW), (2, 2))
            labels[i] = BOX_START, BOX_END
        else:
            deep = kind_P[i] < box_share + centre_share
            coords[i, 0] = centre_point(mask_HW) if deep else random_point(rng, mask_HW)
            labels[i, 0] = FOREGROUND

    # Points that no mask covers
    is_box_P, is_void_P = kind_P < box_share, np.zeros(count, np.bool_)
    void_HW: NDArray[np.bool_] = np.logical_not(masks_NHW.any(axis=0))
    if void_share and void_HW.mean() > 0.05:
        for i in range(count - round(void_share * count), count):
            coords[i], labels[i] = 0, (FOREGROUND, PAD)
            coords[i, 0] = random_point(rng, void_HW)
            is_box_P[i], is_void_P[i] = False, True

    return Prompts(coords, labels, target_P, is_box_P, is_void_P)


def correction_points(
    generator: torch.Generator, logits_PHW: Tensor, targets_PHW: Tensor
) -> tuple[Tensor, Tensor]:
    """A point drawn from each prompt's error region: foreground where the mask misses, background where it
    spills.

    Args:
        generator: consumed.
        logits_PHW: float[P, H, W] of the masks so far.
        targets_PHW: float[P, H, W], 0..1, what they should be.

    Returns:
        Cells int64[P, 2] as (x, y), and labels int64[P]; a point of the target where there is no error.
    """
    truth = targets_PHW > 0.5
    error = (logits_PHW > 0) != truth
    weight = error.flatten(1).float() + 1e-6 * (truth.flatten(1).float() + 1e-6)
    cell = torch.multinomial(weight, 1, generator=generator)[:, 0]
    labels = truth.flatten(1).gather(1, cell[:, None])[:, 0].long()
    width = logits_PHW.shape[-1]
    return torch.stack([cell % width, cell // width], dim=1), labels


def embed_tokens(encoder: PromptEncoder, coords_BPT2: Tensor, labels_BPT: Tensor, image_size: int) -> Tensor:
    """Embed points, box corners and padding in one table look-up; the same numbers as PromptEncoder's own.

    Args:
        encoder: the model's.
        coords_BPT2: float[B, P, T, 2], (x, y) in pixels of the padded input.
        labels_BPT: int64[B, P, T], -1 to 3.
        image_size: side of the padded input, pixels.

    Returns:
        float[B, P, T, C].
    """
    unit = (coords_BPT2.float() + 0.5) / image_size
    with torch.autocast(unit.device.type, enabled=False):  # eight bits cannot tell positions apart
        position = encoder.pe_layer._pe_encoding(unit)
    table = torch.cat([encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)])
    embedded: Tensor = position * (labels_BPT >= 0)[..., None] + table[labels_BPT + 1]
    return embedded
