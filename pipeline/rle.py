"""Run-length encoded masks: COCO's compressed form, and what can be asked of it without pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BoolHW = npt.NDArray[np.bool_]
RunLengths = npt.NDArray[np.int64]  # alternating lengths of 0s and 1s, column by column, the 0s first


@dataclass(frozen=True)
class Rle:
    """A binary mask as COCO's compressed run lengths (column by column, zeros first)."""

    height: int
    width: int
    counts: bytes

    def to_coco(self) -> dict[str, Any]:
        """`{"size": [h, w], "counts": str}`, as json and pycocotools want it."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    @classmethod
    def from_coco(cls, segmentation: Mapping[str, Any]) -> Rle:
        """The opposite of `to_coco`; also takes counts as bytes or as a list of run lengths."""
        raise NotImplementedError


@dataclass(frozen=True)
class RleMeasures:
    """area_px int64[N] and inclusive corners box_xyxy int64[N, 4] (zeros for an empty mask)."""

    area_px: npt.NDArray[np.int64]
    box_xyxy: npt.NDArray[np.int64]


def encode_mask(mask_HW: BoolHW) -> Rle:
    raise NotImplementedError


def decode(rle: Rle) -> BoolHW:
    raise NotImplementedError


def run_lengths(rle: Rle) -> RunLengths:
    raise NotImplementedError


def from_run_lengths(height: int, width: int, lengths: npt.ArrayLike) -> Rle:
    raise NotImplementedError


def area_px(rle: Rle) -> int:
    raise NotImplementedError


def box_xyxy(rle: Rle) -> tuple[int, int, int, int]:
    """Inclusive corners, zeros for an empty mask (the reference's batched_mask_to_box)."""
    raise NotImplementedError


def place(rle: Rle, *, x: int, y: int, height: int, width: int) -> Rle:
    """The mask of a crop whose corner lies at (x, y) of an image of height x width."""
    raise NotImplementedError
