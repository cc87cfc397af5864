"""The steps by kernels (kernels/): grids, block sizes and layouts; the numbers are torch_ops.py's.

A step whose shapes a kernel doesn't serve is done by torch on the same device, which the log says once.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from maskmill.pipeline.gpu.axis_tables import FrameTables
from maskmill.pipeline.gpu.kernels.attention import attention_kernel
from maskmill.pipeline.gpu.kernels.head import head_kernel
from maskmill.pipeline.gpu.kernels.measure import measure_kernel
from maskmill.pipeline.gpu.kernels.runs import runs_kernel
from maskmill.pipeline.gpu.kernels.suppress import suppress_kernel
from maskmill.pipeline.gpu.ops import (
    MOST_SUPPRESSED,
    AttentionInputs,
    HeadImage,
    HeadPrompts,
    HeadWeights,
    Levels,
    Runs,
    Slots,
    float32_below,
)
from maskmill.pipeline.gpu.torch_ops import TorchOps
from maskmill.pipeline.masks.upsample_loops import ROUNDING

_log = logging.getLogger(__name__)

FUSED = {"enable_fp_fusion": True}
"""Said aloud, since Triton's default changes."""

UNFUSED = {"enable_fp_fusion": False}
"""Where a fused product and sum would round otherwise than the oracle; `tl.fma` fuses all the same."""


class TritonOps:
    """See `DeviceOps`."""

    def __init__(self) -> None:
        self._torch = TorchOps()

    def attention(self, inputs: AttentionInputs) -> Tensor:
        """See `DeviceOps.attention`."""
        qkv = inputs.qkv_BHW3ND
        batch, height, width, _, heads, channels = qkv.shape
        main, rest = cut_width(channels)
        if main < 16 or rest not in (0, 16, 32, 64):
            _told(f"attention heads of {channels} channels")
            return self._torch.attention(inputs)
        windows_across = -(-width // inputs.window)
        windows = windows_across * -(-height // inputs.window)
        positions = inputs.down_BHWNk is not None
        padded, rows, block = attention_blocks(inputs.window)
        out = torch.empty_like(qkv[:, :, :, 0], memory_format=torch.contiguous_format)
        grid = (-(-(inputs.window**2) // block), windows * heads, batch)
        _launch(attention_kernel, grid)(
            qkv,
            inputs.bias_3ND,
            inputs.down_BHWNk if positions else qkv,
            inputs.across_BHWNk if positions else qkv,
            out,
            channels**-0.5,
            height,
            width,
            heads,
            windows_across,
            WINDOW=inputs.window,
            PADDED=padded,
            ROWS=rows,
            D=main,
            R=rest,
            POSITIONS=positions,
            BLOCK_M=block,
            PRECISION="ieee",
            num_warps=block // 16,
            num_stages=2,
            **FUSED,
        )
        return out

    def head(self, weights: HeadWeights, image: HeadImage, prompts: HeadPrompts, out_PMhw: Tensor) -> None:
        """See `DeviceOps.head`."""
        tokens, _, pixel = image.shared_S4E.shape
        fine = weights.second_bias_G.shape[0]
        powers = all(size >= 16 and size & (size - 1) == 0 for size in (pixel, fine))
        if not powers:
            _told(f"a mask head of {pixel} and {fine} channels")
            self._torch.head(weights, image, prompts, out_PMhw)
            return
        rows, finer = prompts.rows_PKS, image.fine_S44G is not None
        grid = (len(rows), -(-tokens // HEAD_BLOCK), 4)
        _launch(head_kernel, grid)(
            rows,
            prompts.rho_PS,
            prompts.weight_PS,
            prompts.mapped_PK4E,
            image.shared_S4E,
            weights.constant_4E,
            image.middle_S4E if finer else image.shared_S4E,
            weights.norm_weight_E,
            weights.norm_bias_E,
            weights.second_4EG,
            weights.second_bias_G,
            image.fine_S44G if finer else image.shared_S4E,
            prompts.direction_PMG,
            prompts.keep_PM,
            out_PMhw,
            weights.eps,
            tokens,
            image.across,
            prompts.mapped_PK4E.shape[1],
            rows.shape[1],
            K=max(16, 1 << (prompts.mapped_PK4E.shape[1] - 1).bit_length()),
            E=pixel,
            G=fine,
            M=out_PMhw.shape[1],
            FINER=finer,
            BLOCK=HEAD_BLOCK,
            PRECISION="ieee",
            num_warps=4,
            num_stages=1,
            **FUSED,
        )

    def measure(self, logits_Nhw: Tensor, keep_N: Tensor, tables: FrameTables, levels: Levels) -> Tensor:
        """See `DeviceOps.measure`."""
        rows, columns = tables.rows, tables.columns
        out_N7 = _empty_measures(logits_Nhw.device).expand(len(logits_Nhw), 7).contiguous()
        outer, level, inner = (_as_float32(one) for one in (levels.outer, levels.level, levels.inner))
        _launch(measure_kernel, (len(logits_Nhw), rows.tiles))(
            logits_Nhw,
            keep_N,
            rows.taps_4L,
            rows.weights_6L,
            rows.bounds_2T,
            columns.taps_4L,
            columns.weights_6L,
            columns.bounds_2T,
            out_N7,
            logits_Nhw.shape[1],
            logits_Nhw.shape[2],
            rows.outputs,
            columns.outputs,
            rows.tiles,
            columns.tiles,
            outer,
            level,
            inner,
            outer - ROUNDING * abs(outer),
            inner + ROUNDING * abs(inner),
            TILE_Y=rows.tile,
            TILE_X=columns.tile,
            PATCH_Y=rows.patch,
            PATCH_X=columns.patch,
            num_warps=8,
            **UNFUSED,
        )
        return out_N7

    def suppress(self, box_xyxy_N4: Tensor, alive_N: Tensor, max_iou: float) -> Tensor:
        """See `DeviceOps.suppress`."""
        num = len(box_xyxy_N4)
        assert num <= MOST_SUPPRESSED, "the engine asks for no more"
        kept_N = torch.zeros(num, dtype=torch.int32, device=box_xyxy_N4.device)
        block = max(128, 1 << (num - 1).bit_length())
        _launch(suppress_kernel, (1,))(
            box_xyxy_N4.T.float().contiguous(),
            alive_N.int(),
            kept_N,
            float32_below(max_iou),
            num,
            BLOCK=block,
            num_warps=min(32, block // 128),
            **UNFUSED,
        )
        return kept_N

    def runs(self, logits_Nhw: Tensor, slots: Slots, tables: FrameTables, level: float) -> Runs:
        """See `DeviceOps.runs`."""
        rows, columns = tables.rows, tables.columns
        device, num_slots = logits_Nhw.device, len(slots.mask_V)
        counts = torch.zeros(num_slots, columns.outputs, dtype=torch.int32, device=device)
        places = torch.zeros(slots.capacity, dtype=torch.int32, device=device)
        level = _as_float32(level)
        ends = counts
        for write in (False, True):
            _launch(runs_kernel, (num_slots, columns.tiles))(
                logits_Nhw,
                slots.mask_V,
                slots.num_1,
                rows.taps_4L,
                rows.weights_6L,
                rows.bounds_2T,
                columns.taps_4L,
                columns.weights_6L,
                columns.bounds_2T,
                counts,
                ends,
                places,
                logits_Nhw.shape[1],
                logits_Nhw.shape[2],
                rows.outputs,
                columns.outputs,
                rows.tiles,
                columns.tiles,
                level,
                level - ROUNDING * abs(level),
                level + ROUNDING * abs(level),
                slots.corner,
                slots.image_height,
                slots.capacity,
                WRITE=write,
                TILE_Y=rows.tile,
                TILE_X=columns.tile,
                PATCH_Y=rows.patch,
                PATCH_X=columns.patch,
                num_warps=4,
                **UNFUSED,
            )
            if not write:
                ends = counts.flatten().cumsum(0, dtype=torch.int32).view(counts.shape)
        return Runs(ends[:, -1], places)


HEAD_BLOCK = 64
"""Image tokens of a program of the mask head."""


def attention_blocks(window: int) -> tuple[int, int, int]:
    """Keys of a padded row, rows of a block of keys, queries of a block."""
    padded = max(16, 1 << (window - 1).bit_length())
    return (padded, 1, 128) if window >= 32 else (padded, max(1, 32 // padded), 64)


def cut_width(channels: int) -> tuple[int, int]:
    """A head's width as a power of two and the rest."""
    main = 1 << (channels.bit_length() - 1)
    return main, channels - main


def _launch(kernel: Any, grid: tuple[int, ...]) -> Any:
    return kernel[grid]


def _as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


@lru_cache(maxsize=8)
def _empty_measures(device: torch.device) -> Tensor:
    """int32[7]: what bands start from."""
    return torch.tensor([0, 0, 0, 2**30, 2**30, -1, -1], dtype=torch.int32).to(device)


@lru_cache(maxsize=64)
def _told(what: str) -> None:
    _log.warning("no kernel for %s: torch's operations do it, on the same device", what)
