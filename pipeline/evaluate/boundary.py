"""Boundary IoU: how well outlines agree, whatever the masks' size.

A mask's boundary is the part of it within d of its outline, d being 2 % of the picture's diagonal; boundary
IoU is the IoU of two masks' boundaries. Erosion here is by a square of 2 d + 1, which is what the authors'
code does with d passes of a 3x3 element; the picture's border counts as outside.

Source: Cheng et al., Boundary IoU (2021), section 3, and its public code (`mask_to_boundary`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bools = NDArray[np.bool_]

SHARE_OF_DIAGONAL = 0.02


def boundary_of(mask_HW: Bools, share: float = SHARE_OF_DIAGONAL) -> Bools:
    """The mask's pixels within `share` of the diagonal from its outline: bool[H, W]."""
    height, width = mask_HW.shape
    depth = max(1, round(share * float(np.hypot(height, width))))
    boundary = np.zeros_like(mask_HW)
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]  # beyond it all is outside
        cut = mask_HW[box]
        inner = ndimage.minimum_filter(cut.astype(np.uint8), size=2 * depth + 1, mode="constant", cval=0)
        boundary[box] = cut & (inner == 0)
    return boundary


def boundary_iou(answer_HW: Bools, truth_HW: Bools, share: float = SHARE_OF_DIAGONAL) -> float:
    """IoU of two masks' boundaries, 0 to 1; 0 where both are empty.

    Raises:
        ValueError: masks of two sizes.
    """
    if answer_HW.shape != truth_HW.shape:
        raise ValueError(f"masks of {answer_HW.shape} and {truth_HW.shape}: compare masks of one size")
    first, second = boundary_of(answer_HW, share), boundary_of(truth_HW, share)
    return float((first & second).sum() / max(1, (first | second).sum()))
