"""Image tokens in blocks that stay in a core's cache: how rows of numbers are laid out for compiled loops.

A block's rows lie together. In rows of all image tokens their distance, a power of two, would have them share
a few lines of cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]

BLOCK = 128
"""Image tokens of a block, a power of two: what it needs, 100 KiB for SAM, stays in a core's second cache."""


def in_blocks(values_AS: Tensor) -> Floats:
    """float32[L, A, N] of rows on a CPU: L blocks of N image tokens, zeros behind the last token."""
    num_blocks = -(-values_AS.shape[1] // BLOCK)
    padded_AS = nn.functional.pad(values_AS, (0, num_blocks * BLOCK - values_AS.shape[1]))
    return array(padded_AS.view(-1, num_blocks, BLOCK).transpose(0, 1))


def array(values: Tensor) -> Floats:
    """Without a copy where its numbers lie in order already."""
    laid_out: Floats = values.detach().contiguous().numpy()
    return laid_out
