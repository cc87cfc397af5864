"""Random filled boxes as masks, and their IoU written out."""

from __future__ import annotations

import numpy as np

Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def blocks(seed: int, count: int, size: int = 64) -> Bools:
    draw = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), np.bool_)
    for mask in masks:
        y, x = draw.integers(0, size - 8, 2)
        height, width = draw.integers(4, size // 2, 2)
        mask[y : y + height, x : x + width] = True
    return masks


def plain_iou(a: Bools, b: Bools) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
