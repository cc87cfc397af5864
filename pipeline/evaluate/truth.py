"""A picture with its true masks, and the segmenter's answers brought to the picture's size.

Shapes: N true masks or answers, H x W pixels of the picture, h x w low-resolution logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.segmenters.base import ImageEmbedding

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

SMALL_PX, LARGE_PX = 32**2, 96**2
"""COCO's bounds of small and large masks, in px."""

LIMIT_BYTES = 128 * 2**20  # full-size logits held at once


@dataclass(frozen=True, eq=False)
class Truth:
    """A picture and what is in it.

    Attributes:
        name: of the picture, unique in its set.
        image: uint8[H, W, 3] RGB.
        masks_NHW: bool[N, H, W], none empty.
        category_N: int[N], a number per kind; all 1 where kinds are unknown.
        crowd_HW: pixels of unlabelled crowds, which no figure holds against an answer; None without any.
        frequency_N: LVIS's "r", "c" or "f" of each mask's kind; empty where unknown.
    """

    name: str
    image: NDArray[np.uint8]
    masks_NHW: Bools
    category_N: tuple[int, ...] = ()
    crowd_HW: Bools | None = None
    frequency_N: tuple[str, ...] = ()

    def categories(self) -> tuple[int, ...]:
        """One number a mask."""
        return self.category_N or (1,) * len(self.masks_NHW)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes from elsewhere, such as a detector's, for one picture.

    Attributes:
        box_xyxy_N4: float64[N, 4], corners in px.
        score_N: float64[N].
        category_N: int[N].
    """

    box_xyxy_N4: Floats
    score_N: Floats
    category_N: tuple[int, ...] = field(default=())


def iou_rows(answers_NHW: Tensor, truths_NHW: Tensor) -> Tensor:
    """IoU of each answer with its truth.

    Args:
        answers_NHW: bool[N, ..., H, W].
        truths_NHW: bool, of a shape that broadcasts to it.

    Returns:
        float64[N, ...]; 0 where both are empty.
    """
    common = (answers_NHW & truths_NHW).sum((-1, -2)).double()
    union = (answers_NHW | truths_NHW).sum((-1, -2)).double()
    return common / union.clamp(min=1)


def full_size(logits_Nhw: Tensor, embedding: ImageEmbedding) -> Tensor:
    """Low-resolution logits at the picture's size, as `Sam.postprocess_masks` makes them.

    Args:
        logits_Nhw: float32[N, h, w] over the square model input.
        embedding: of the picture; its frame says where they lie.

    Returns:
        float32[N, H, W].
    """
    frame, square = embedding.frame, logits_Nhw[:, None]
    if square.shape[-1] != frame.image_size:
        side = (frame.image_size, frame.image_size)
        square = F.interpolate(square, side, mode="bilinear", align_corners=False)
    cut = square[..., : frame.input_height, : frame.input_width]
    size = (embedding.height, embedding.width)
    return F.interpolate(cut, size, mode="bilinear", align_corners=False)[:, 0]


def batches(count: int, height: int, width: int, *, most: int = 64) -> Iterator[slice]:
    """Cuts `count` masks of a picture into batches whose full-size logits, three a mask, fit into memory."""
    size = max(1, min(most, LIMIT_BYTES // (3 * 4 * height * width)))
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))


def as_tensor(masks_NHW: Bools, like: Tensor) -> Tensor:
    """The masks on another tensor's device."""
    return torch.from_numpy(np.ascontiguousarray(masks_NHW)).to(like.device)


def boxes_of(masks_NHW: Bools) -> Floats:
    """The box of each mask: float64[N, 4], x0, y0, x1, y1 with inclusive corners, in px.

    Raises:
        ValueError: an empty mask.
    """
    boxes = np.zeros((len(masks_NHW), 4))
    for i, mask_HW in enumerate(masks_NHW):
        rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        if not len(rows):
            raise ValueError(f"mask {i} is empty and has no box; drop empty masks first")
        boxes[i] = cols[0], rows[0], cols[-1], rows[-1]
    return boxes
