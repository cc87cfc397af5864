"""The kernels' steps by torch alone: the same numbers on any device, their oracle and their stand-in.

They make what the kernels never write (scores, full-size logits of some masks at a time), so they are slow.
Nothing here waits for the device.

Shapes: ops.py's; Y x X pixels of the crop, A masks upsampled together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.gpu.axis_tables import AxisTable, FrameTables
from maskmill.pipeline.gpu.ops import (
    AttentionInputs,
    HeadImage,
    HeadPrompts,
    HeadWeights,
    Levels,
    Runs,
    Slots,
    float32_below,
)

_NUMBERS_AT_ONCE = 2**25


class TorchOps:
    """See `DeviceOps`."""

    def attention(self, inputs: AttentionInputs) -> Tensor:
        """See `DeviceOps.attention`."""
        qkv, window = inputs.qkv_BHW3ND, inputs.window
        batch, height, width, _, heads, channels = qkv.shape
        down_by, across_by = -height % window, -width % window

        # Beyond the border the projection's bias, then windows: [B x windows, N, window^2, ...]
        beyond = inputs.bias_3ND.expand(batch, height + down_by, width + across_by, -1, -1, -1).clone()
        beyond[:, :height, :width] = qkv
        cut = _windows(beyond.flatten(3), window)
        query, key, value = cut.view(*cut.shape[:2], 3, heads, channels).permute(2, 0, 3, 1, 4)
        scores = (query * channels**-0.5) @ key.transpose(-1, -2)
        if inputs.down_BHWNk is not None and inputs.across_BHWNk is not None:
            terms = [
                _windows(F.pad(term.flatten(3), (0, 0, 0, across_by, 0, down_by)), window)
                .view(len(cut), window**2, heads, window)
                .transpose(1, 2)
                for term in (inputs.down_BHWNk, inputs.across_BHWNk)
            ]
            by_key = (
                scores.view(*scores.shape[:3], window, window) + terms[0][..., None] + terms[1][..., None, :]
            )
            scores = by_key.flatten(-2)
        mixed = torch.softmax(scores, dim=-1) @ value

        # Back to the image
        grid = (batch, (height + down_by) // window, (width + across_by) // window, heads, window, window)
        image = mixed.reshape(*grid, channels).permute(0, 1, 4, 2, 5, 3, 6)
        whole = image.reshape(batch, height + down_by, width + across_by, heads, channels)
        inside: Tensor = whole[:, :height, :width].contiguous()
        return inside

    def head(self, weights: HeadWeights, image: HeadImage, prompts: HeadPrompts, out_PMhw: Tensor) -> None:
        """See `DeviceOps.head`."""
        tokens, _, channels = image.shared_S4E.shape
        step = max(1, _NUMBERS_AT_ONCE // (tokens * 16 * weights.second_bias_G.shape[0]))
        for first in range(0, len(out_PMhw), step):
            some = slice(first, first + step)
            rows = prompts.rows_PKS[some] * prompts.rho_PS[some, None].to(prompts.rows_PKS.dtype)
            added = rows.transpose(1, 2) @ prompts.mapped_PK4E[some].flatten(2)
            pixels = added.view(*added.shape[:2], 4, channels)
            pixels = pixels.float() + image.shared_S4E * prompts.weight_PS[some][..., None, None]
            pixels = pixels + weights.constant_4E
            if image.middle_S4E is not None:
                pixels = pixels + image.middle_S4E
            scale, shift = weights.norm_weight_E, weights.norm_bias_E
            pixels = F.gelu(F.layer_norm(pixels, (channels,), scale, shift, weights.eps))

            # By pixel under a pixel, then under each direction
            fine = torch.einsum("pste,ueg->pstug", pixels.to(weights.second_4EG.dtype), weights.second_4EG)
            added_fine = weights.second_bias_G if image.fine_S44G is None else image.fine_S44G
            fine = F.gelu(fine.float() + added_fine)
            logits = torch.einsum("pstug,pmg->pmstu", fine, prompts.direction_PMG)
            down = tokens // image.across
            by_place = logits.reshape(*logits.shape[:2], down, image.across, 2, 2, 2, 2)
            placed = by_place.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(out_PMhw[some].shape)
            out_PMhw[some] = torch.where(prompts.keep_PM[some, :, None, None] != 0, placed, out_PMhw[some])

    def measure(self, logits_Nhw: Tensor, keep_N: Tensor, tables: FrameTables, levels: Levels) -> Tensor:
        """See `DeviceOps.measure`."""
        height, width = tables.rows.outputs, tables.columns.outputs
        out_N7 = keep_N.new_zeros(len(logits_Nhw), 7, dtype=torch.int32)
        for some in _parts(len(logits_Nhw), height * width):
            values_AYX = upsampled(logits_Nhw[some], tables)
            for place, level in enumerate((levels.outer, levels.level, levels.inner)):
                out_N7[some, place] = (values_AYX > level).sum(dim=(1, 2)).int()
            mask_AYX = values_AYX > levels.level
            for place, (any_AL, length) in enumerate(
                ((mask_AYX.any(dim=1), width), (mask_AYX.any(dim=2), height))
            ):
                along_L = torch.arange(length, device=any_AL.device, dtype=torch.int32)
                out_N7[some, 3 + place] = torch.where(any_AL, along_L, 2**30).amin(dim=1)
                out_N7[some, 5 + place] = torch.where(any_AL, along_L, -1).amax(dim=1)
        return out_N7

    def suppress(self, box_xyxy_N4: Tensor, alive_N: Tensor, max_iou: float) -> Tensor:
        """See `DeviceOps.suppress`."""
        boxes = box_xyxy_N4.float()
        near, far = boxes[:, None, :2], boxes[:, None, 2:]
        sides = (torch.minimum(far, boxes[:, 2:]) - torch.maximum(near, boxes[:, :2])).clamp_min(0)
        inner_NN = sides[..., 0] * sides[..., 1]
        area_N = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        iou_NN = inner_NN / (area_N[:, None] + area_N - inner_NN)
        after_NN = (iou_NN > float32_below(max_iou)).triu(1)

        living_N, kept_N = alive_N.clone(), torch.zeros_like(alive_N)
        for mask in range(len(boxes)):
            kept_N[mask] = living_N[mask]
            living_N &= ~(after_NN[mask] & living_N[mask])
        return kept_N.int()

    def runs(self, logits_Nhw: Tensor, slots: Slots, tables: FrameTables, level: float) -> Runs:
        """See `DeviceOps.runs`."""
        height, width = tables.rows.outputs, tables.columns.outputs
        device, num_slots = logits_Nhw.device, len(slots.mask_V)
        places = torch.zeros(slots.capacity + 1, dtype=torch.int32, device=device)
        x = torch.arange(width, device=device, dtype=torch.int32)[:, None] * slots.image_height
        place_XY = slots.corner + x + torch.arange(height + 1, device=device, dtype=torch.int32)
        ends, used = [], torch.zeros((), dtype=torch.int64, device=device)

        for some in _parts(num_slots, height * width):
            masks_A = slots.mask_V[some].long().clamp(0, len(logits_Nhw) - 1)
            counts_A = torch.arange(some.start, min(some.stop, num_slots), device=device) < slots.num_1
            mask_AXY = (upsampled(logits_Nhw[masks_A], tables) > level).transpose(1, 2)
            padded_AXY = F.pad((mask_AXY & counts_A[:, None, None]).byte(), (1, 1))
            changed_AXY = padded_AXY[..., 1:] != padded_AXY[..., :-1]

            # Each change to the next free place; one place more takes what is none and what doesn't fit
            order_AXY = used + changed_AXY.flatten().cumsum(0).view(changed_AXY.shape)
            to_AXY = torch.where(changed_AXY, order_AXY - 1, slots.capacity).clamp_max(slots.capacity)
            places.scatter_(0, to_AXY.flatten(), place_XY.expand(changed_AXY.shape).flatten())
            ends.append(order_AXY[:, -1, -1])
            used = order_AXY[-1, -1, -1]
        return Runs(torch.cat(ends).int(), places[:-1])


def upsampled(logits_Ahw: Tensor, tables: FrameTables) -> Tensor:
    """float32[A, Y, X]: logits at the crop's size, by kernels/taps.py's (1)."""
    rows, columns = tables.rows, tables.columns
    corners = [_middle(logits_Ahw, rows, columns, y, x) for y in range(2) for x in range(2)]
    upper, lower = rows.weights_6L[4:, :, None]
    left, right = columns.weights_6L[4:, None]
    return _blend(corners, upper, lower, left, right)


def _middle(logits_Ahw: Tensor, rows: AxisTable, columns: AxisTable, y: int, x: int) -> Tensor:
    """float32[A, Y, X]: the middle grid at each output's first or second row and column."""
    by_row = [logits_Ahw.index_select(1, rows.taps_4L[2 * y + i]) for i in range(2)]
    taps = [some.index_select(2, columns.taps_4L[2 * x + i]) for some in by_row for i in range(2)]
    upper, lower = rows.weights_6L[2 * y : 2 * y + 2, :, None]
    left, right = columns.weights_6L[2 * x : 2 * x + 2, None]
    return _blend(taps, upper, lower, left, right)


def _blend(taps: list[Tensor], upper: Tensor, lower: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """kernels/taps.py's (1); a fused multiply-add is one in float64, rounded once more."""
    a, b, c, d = taps
    value = _fused(a, upper * left, b * (upper * right))
    return _fused(d, lower * right, _fused(c, lower * left, value))


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.addcmul(c.double(), a.double(), b.double()).float()


def _windows(image_BHWC: Tensor, window: int) -> Tensor:
    """[B x windows, window^2, C]."""
    batch, height, width, channels = image_BHWC.shape
    cut = image_BHWC.view(batch, height // window, window, width // window, window, channels)
    return cut.transpose(2, 3).reshape(-1, window * window, channels)


def _parts(count: int, numbers_each: int) -> list[slice]:
    step = max(1, _NUMBERS_AT_ONCE // numbers_each)
    return [slice(first, first + step) for first in range(0, count, step)]
