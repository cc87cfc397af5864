"""The student's view of a training picture: a part of it, in other colours, blurred or noisy.

A teacher made the masks on the plain picture. A student that must find them in a harder view learns what the
teacher knows but not its habits: its own answer is never quite the target.

Everything is drawn from the generator given, so a view is its image's number's.

Source: Xie et al., Self-training with Noisy Student (2020); Sohn et al., FixMatch (2020), section 2.3.

Shapes: N masks, H x W the picture, h x w the part of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from maskmill.pipeline.train.nano.pictures.photo_looks import changed_looks
from maskmill.pipeline.train.pictures import Pictures

LEAST_SIDE = 0.5
"""Of a part, as a share of the picture's."""


def part_of(rng: np.random.Generator, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a part: each side half of the picture's or more, anywhere.

    Args:
        rng: drawn from.
        size: height and width, px.
    """
    found = []
    for side in size:
        kept = max(1, round(side * float(rng.uniform(LEAST_SIDE, 1))))
        start = int(rng.integers(side - kept + 1))
        found.append(slice(start, start + kept))
    return found[0], found[1]


def other_look(rng: np.random.Generator, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of any size in another look: tone, colour, blur, noise, JPEG.

    Args:
        rng: drawn from.
        image_HWC: uint8[H, W, 3].

    Returns:
        uint8[H, W, 3].
    """
    height, width = image_HWC.shape[:2]
    side = max(height, width)
    padded_1HWC = np.zeros((1, side, side, 3), np.uint8)
    padded_1HWC[0, :height, :width] = image_HWC
    whole = Pictures(
        torch.from_numpy(padded_1HWC).permute(0, 3, 1, 2).contiguous(),
        torch.tensor([[height, width]]),
        torch.zeros((1, 0, 1, 1), dtype=torch.uint8),
        torch.zeros(1, dtype=torch.bool),
    )
    changed = changed_looks(whole, torch.Generator().manual_seed(int(rng.integers(2**62))))
    seen: NDArray[np.uint8] = changed.image_B3SS[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
    return seen
