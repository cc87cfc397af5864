"""Islands, holes and containment of masks, found on run lengths instead of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.rle import Rle


@dataclass(frozen=True)
class CleanMask:
    """A mask after holes were filled, then islands removed.

    `largest_island_px` is the largest island's area (0 for an empty mask): with the rule
    "a mask whose largest island is small is dropped", compare it with the same minimum.
    """

    rle: Rle
    changed: bool
    area_px: int
    box_xyxy: tuple[int, int, int, int]  # inclusive corners, zeros when empty
    largest_island_px: int


def remove_small_regions(rle: Rle, min_area_px: float, mode: Literal["holes", "islands"]) -> tuple[Rle, bool]:
    """(mask, changed), as `segment_anything.utils.amg.remove_small_regions`."""
    raise NotImplementedError


def largest_island_px(rle: Rle) -> int:
    raise NotImplementedError


def clean(rles: Sequence[Rle], min_area_px: float, *, threads: int | None = None) -> list[CleanMask]:
    """Holes below min_area_px filled, then islands below it removed, as the reference's postprocess_small_regions."""
    raise NotImplementedError


def intersection_px(first: Rle, second: Rle) -> int:
    raise NotImplementedError


def parents(rles: Sequence[Rle], *, containment: float = 0.95) -> list[int | None]:
    """For each mask the index of the smallest larger mask holding at least `containment` of its area, or None.

    Never a cycle: of two masks of equal area only the one earlier in the list can be the parent.
    """
    raise NotImplementedError
