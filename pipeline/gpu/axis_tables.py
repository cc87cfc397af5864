"""The tables of one axis of both interpolations, on a device, and the tiles that kernels walk.

masks/upsample_axes.py has the tables and says what they are; here they are one output at a time, so that a
program reads what its outputs need and nothing else:

    taps     [4, L]: the two logits of the output's first middle place, the two of its second
    weights  [6, L]: of these four, then of the two middle places
    bounds   [2, tiles]: the first and last logit that a tile of outputs reaches

They depend on sizes alone, so they are made once a size and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.masks.upsample_axes import compose_axis


@dataclass(frozen=True, eq=False)
class AxisTable:
    """One axis; see the header.

    Attributes:
        taps_4L: int32.
        weights_6L: float32.
        bounds_2T: int32, inclusive.
        tile: outputs of a tile; the last may be shorter.
        patch: logits that any tile reaches, at most; a power of two.
    """

    taps_4L: Tensor
    weights_6L: Tensor
    bounds_2T: Tensor
    tile: int
    patch: int

    @property
    def outputs(self) -> int:
        """L: the axis's length in px."""
        return self.taps_4L.shape[1]

    @property
    def tiles(self) -> int:
        """T: how many tiles cover it."""
        return self.bounds_2T.shape[1]


@dataclass(frozen=True)
class FrameTables:
    """Both axes of a frame."""

    rows: AxisTable
    columns: AxisTable


def tables_of(frame: Frame, low_hw: Sequence[int], device: torch.device) -> FrameTables:
    """The tables of a frame.

    Args:
        frame: where the logits lie.
        low_hw: height and width of the logits.
        device: where the tables go.
    """
    height, width = low_hw
    return FrameTables(
        _table(height, frame.image_size, frame.input_height, frame.crop_height, ROW_TILE, device),
        _table(width, frame.image_size, frame.input_width, frame.crop_width, COLUMN_TILE, device),
    )


ROW_TILE, COLUMN_TILE = 8, 64
"""Outputs of a tile: two to four values a thread, whose sixteen taps each then fit the registers."""


@lru_cache(maxsize=256)
def _table(low: int, image: int, given: int, wanted: int, tile: int, device: torch.device) -> AxisTable:
    axis = compose_axis(low, image, given, wanted)
    taps_4L = np.concatenate([axis.middle_taps[:, axis.taps[0]], axis.middle_taps[:, axis.taps[1]]])
    middle_4L = np.concatenate([axis.middle_weights[:, axis.taps[0]], axis.middle_weights[:, axis.taps[1]]])
    starts_T = np.arange(0, wanted, tile)
    bounds_2T = np.stack(
        [
            np.minimum.reduceat(taps_4L.min(axis=0), starts_T),
            np.maximum.reduceat(taps_4L.max(axis=0), starts_T),
        ]
    )
    patch = 1 << int((bounds_2T[1] - bounds_2T[0]).max()).bit_length()
    return AxisTable(
        to_device(taps_4L.astype(np.int32), device),
        to_device(np.concatenate([middle_4L, axis.weights]).astype(np.float32), device),
        to_device(bounds_2T.astype(np.int32), device),
        tile,
        patch,
    )


def to_device(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], device: torch.device) -> Tensor:
    """A copy on the device that the host doesn't wait for."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.clone()
