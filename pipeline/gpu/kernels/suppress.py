"""Greedy suppression in one program: boxes stay in registers, one round a kept mask.

    (1)  the best mask that is still alive is kept
    (2)  what overlaps it by more than the limit dies

The rule is torchvision's: IoU of continuous corners in float32, each step rounded; a box without area
overlaps nothing (0 / 0 is above no limit).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def suppress_kernel(
    boxes: tl.tensor, alive: tl.tensor, kept: tl.tensor, limit: tl.tensor, num: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Grid: 1. boxes float32[4, N], best first; alive int32[N]; sets kept int32[N] to 1 for what stays."""
    n = tl.arange(0, BLOCK)
    seen = n < num
    x0 = tl.load(boxes + n, mask=seen, other=0.0)
    y0 = tl.load(boxes + num + n, mask=seen, other=0.0)
    x1 = tl.load(boxes + 2 * num + n, mask=seen, other=0.0)
    y1 = tl.load(boxes + 3 * num + n, mask=seen, other=0.0)
    area = (x1 - x0) * (y1 - y0)
    living = tl.load(alive + n, mask=seen, other=0)

    # (1)
    best = tl.min(tl.where(living != 0, n, BLOCK))
    while best < BLOCK:
        tl.store(kept + best, 1)
        bx0, by0 = tl.load(boxes + best), tl.load(boxes + num + best)
        bx1, by1 = tl.load(boxes + 2 * num + best), tl.load(boxes + 3 * num + best)
        own = (bx1 - bx0) * (by1 - by0)

        # (2)
        across = tl.maximum(tl.minimum(x1, bx1) - tl.maximum(x0, bx0), 0.0)
        down = tl.maximum(tl.minimum(y1, by1) - tl.maximum(y0, by0), 0.0)
        inner = across * down
        iou = tl.div_rn(inner, own + area - inner)
        living = tl.where((iou > limit) | (n <= best), 0, living)
        best = tl.min(tl.where(living != 0, n, BLOCK))
