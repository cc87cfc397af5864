"""From a grid's measured masks to its survivors, on the device: thresholds, suppression, slots.

The rules and their order are masks/automask.py's; every mask keeps its row until the last step, so no shape
depends on a result.

    (1)  passes = kept by predicted IoU, a pixel, stable, not too large, not cut by its crop
    (2)  best first: a stable sort by predicted IoU, what doesn't pass last
    (3)  what suppression keeps goes to slots, best first; more than there are slots is told

Shapes: N masks of a grid, V slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskmill.pipeline.gpu.ops import DeviceOps
from maskmill.pipeline.masks.geometry import EDGE_TOLERANCE_PX, Crop
from maskmill.pipeline.settings.masks import MaskSettings


@dataclass(frozen=True, eq=False)
class Survivors:
    """The masks that suppression kept.

    Attributes:
        mask_V: int32, places among N, best first.
        num_1: int32[1]: how many were kept; more than V where slots ran out.
    """

    mask_V: Tensor
    num_1: Tensor


def passing(
    measures_N7: Tensor, keep_N: Tensor, settings: MaskSettings, crop: Crop, *, height: int, width: int
) -> Tensor:
    """(1): bool[N].

    Args:
        measures_N7: int32, as `DeviceOps.measure` gives them.
        keep_N: bool, what passes by predicted IoU.
        settings: the thresholds.
        crop: where the grid lies.
        height, width: of the image in px.
    """
    outer_N, area_N, inner_N = measures_N7[:, :3].unbind(1)
    passes_N = keep_N & (area_N > 0)
    if settings.stability > 0:
        passes_N &= inner_N.float() / outer_N.float() >= settings.stability
    if settings.max_coverage is not None:
        passes_N &= area_N.double() < settings.max_coverage * (height * width)

    # A box near its crop's border, where that isn't the image's too
    x0, y0 = crop.box_xyxy[:2]
    sides = zip((x0, y0, x0, y0), crop.box_xyxy, (0, 0, width, height), strict=True)
    for column, (corner, own, whole) in enumerate(sides):
        side_N = measures_N7[:, 3 + column] + corner
        near_crop = (side_N - own).abs() <= EDGE_TOLERANCE_PX
        passes_N &= ~(near_crop & ((side_N - whole).abs() > EDGE_TOLERANCE_PX))
    return passes_N


def survivors(
    measures_N7: Tensor, iou_N: Tensor, passes_N: Tensor, ops: DeviceOps, *, max_iou: float, slots: int
) -> Survivors:
    """(2) and (3).

    Args:
        measures_N7: int32, as `DeviceOps.measure` gives them.
        iou_N: float32, predicted.
        passes_N: bool.
        ops: of the device.
        max_iou: box IoU above which the worse mask goes.
        slots: V.
    """
    score_N = torch.where(passes_N, iou_N, -torch.inf)
    order_N = torch.sort(score_N, descending=True, stable=True).indices
    box_N4 = measures_N7[:, 3:].index_select(0, order_N)
    kept_N = ops.suppress(box_N4, passes_N.index_select(0, order_N), max_iou)

    # One slot more takes what isn't kept and what doesn't fit
    reached_N = kept_N.cumsum(0, dtype=torch.int32)
    slot_N = torch.where(kept_N > 0, reached_N - 1, slots).clamp_max(slots)
    mask_V = torch.zeros(slots + 1, dtype=torch.int32, device=iou_N.device)
    mask_V.scatter_(0, slot_N.long(), order_N.int())
    return Survivors(mask_V[:-1], reached_N[-1:])
