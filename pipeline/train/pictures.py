"""A batch of training pictures as tensors of one device: bytes until the moment they are used.

Shapes: B pictures, N masks (padded to the most), S the padded side, s = S/2 low-resolution cells a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PIXEL_STD = np.array([58.395, 57.12, 57.375], np.float32)

CELL_PIXELS = 4


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures, padded to a square at the right and below, and their masks.

    Attributes:
        image_B3SS: uint8.
        size_B2: int64, height and width of what isn't padding.
        cells_BNss: uint8, how many of a cell's four pixels each mask covers; all 0 for a mask that is none.
        is_void_known_B: bool, there is surely nothing where no mask is.
    """

    image_B3SS: Tensor
    size_B2: Tensor
    cells_BNss: Tensor
    is_void_known_B: Tensor

    def __len__(self) -> int:
        return len(self.image_B3SS)

    @property
    def side(self) -> int:
        """S, in pixels."""
        return self.image_B3SS.shape[-1]

    def pick(self, rows: Sequence[int] | slice) -> Pictures:
        """Some of them."""
        return Pictures(*(getattr(self, one.name)[rows] for one in fields(self)))

    def to(self, device: torch.device) -> Pictures:
        """The same on a device."""
        return Pictures(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))

    def inside_BSS(self) -> Tensor:
        """bool[B, S, S], what isn't padding."""
        place = torch.arange(self.side, device=self.size_B2.device)
        rows, cols = (place < self.size_B2[:, axis, None] for axis in (0, 1))
        return rows[:, :, None] & cols[:, None, :]

    def normalised(self) -> Tensor:
        """float32[B, 3, S, S], as `Sam.preprocess` makes it: zeros where it is padded."""
        mean, std = (
            torch.from_numpy(values).to(self.image_B3SS.device)[:, None, None]
            for values in (PIXEL_MEAN, PIXEL_STD)
        )
        return (self.image_B3SS.float() - mean) / std * self.inside_BSS()[:, None]

    def shares_BNK(self) -> Tensor:
        """float32[B, N, K = s x s], the share of each cell that each mask covers."""
        return self.cells_BNss.flatten(2).float() / CELL_PIXELS

    def solid_BNss(self) -> Tensor:
        """bool[B, N, s, s], cells that a mask covers by more than half."""
        return self.cells_BNss > CELL_PIXELS // 2


def together(parts: Sequence[Pictures]) -> Pictures:
    """Batches of one side as one, masks padded to the most.

    Args:
        parts: at least one.
    """
    most = max(part.cells_BNss.shape[1] for part in parts)
    return Pictures(
        torch.cat([part.image_B3SS for part in parts]),
        torch.cat([part.size_B2 for part in parts]),
        torch.cat(
            [F.pad(part.cells_BNss, (0, 0, 0, 0, 0, most - part.cells_BNss.shape[1])) for part in parts]
        ),
        torch.cat([part.is_void_known_B for part in parts]),
    )


def cells_of(masks_NSS: Tensor) -> Tensor:
    """uint8[N, s, s]: pixels of each 2 x 2 cell that a mask covers."""
    bytes_NSS = masks_NSS.to(torch.uint8)
    rows_NsS = bytes_NSS[:, ::2] + bytes_NSS[:, 1::2]
    return rows_NsS[:, :, ::2] + rows_NsS[:, :, 1::2]
