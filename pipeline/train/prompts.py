"""Simulated prompts: points and boxes drawn from masks, and their embedding.

A prompt's tokens are coordinates with labels: -1 padding, 0 background point, 1 foreground point, 2 and 3
box corners, as segment_anything's PromptEncoder numbers them.

Shapes: B images, P prompts, T tokens a prompt, 2 is (x, y), H x W pixels, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from segment_anything.modeling import PromptEncoder
from torch import Tensor

PAD, BACKGROUND, FOREGROUND, BOX_START, BOX_END = -1, 0, 1, 2, 3


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
