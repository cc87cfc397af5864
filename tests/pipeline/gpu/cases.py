"""Inputs of the steps that have kernels, and both ways of doing them: small, with every kind of edge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.gpu.axis_tables import FrameTables, tables_of
from maskmill.pipeline.gpu.ops import (
    AttentionInputs,
    DeviceOps,
    HeadImage,
    HeadPrompts,
    HeadWeights,
    Levels,
    Slots,
)
from maskmill.pipeline.gpu.torch_ops import TorchOps

CPU = torch.device("cpu")
LEVELS = Levels(-1.0, 0.0, 1.0)


def both(step: str, *inputs: Any) -> tuple[Any, Any]:
    """A step's result by kernels and by torch; the process must interpret."""
    from maskmill.pipeline.gpu.triton_ops import TritonOps

    return run(TritonOps(), step, *inputs), run(TorchOps(), step, *inputs)


def run(ops: DeviceOps, step: str, *inputs: Any) -> Any:
    """One step."""
    if step == "head":
        weights, image, prompts, shape = inputs
        out = torch.full(shape, 7.0)
        ops.head(weights, image, prompts, out)
        return out
    return getattr(ops, step)(*inputs)


def attention(
    size_hw: tuple[int, int], window: int, channels: int, *, positions: bool = True
) -> AttentionInputs:
    """Two images, two heads."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    down, across = (values(2, *size_hw, 2, window) for _ in range(2))
    qkv, bias = values(2, *size_hw, 3, 2, channels), values(3, 2, channels)
    return AttentionInputs(qkv, bias, down if positions else None, across if positions else None, window)


def head(*, finer: bool, rows: int = 19) -> tuple[HeadWeights, HeadImage, HeadPrompts, tuple[int, ...]]:
    """Three prompts, the middle one without a wanted output; an embedding of 5 x 7."""
    generator = torch.Generator().manual_seed(1)

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens, pixel, fine = 35, 32, 16
    weights = HeadWeights(
        values(64, 4, pixel),
        values(4, pixel),
        values(pixel),
        values(pixel),
        1e-6,
        values(4, pixel, fine),
        values(fine),
    )
    middle, finest = (values(tokens, 4, pixel), values(tokens, 4, 4, fine)) if finer else (None, None)
    image = HeadImage(values(tokens, 4, pixel), middle, finest, 7)
    keep = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=torch.uint8)
    prompts = HeadPrompts(
        values(3, rows, tokens),
        values(3, rows, 4, pixel),
        values(3, tokens),
        values(3, tokens),
        values(3, 3, fine),
        keep,
    )
    return weights, image, prompts, (3, 3, 20, 28)


def blobs(count: int, low: int = 32, *, seed: int = 2) -> Tensor:
    """float32[count, low, low]: smooth logits; the first three are empty, full and a single pixel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 6, 6, generator=generator) * 6
    logits = torch.nn.functional.interpolate(coarse, (low, low), mode="bilinear")[:, 0]
    logits[0], logits[1] = -9.0, 9.0
    logits[2] = -9.0
    logits[2, 5, 7] = 9.0
    return logits


def frame(crop: tuple[int, int, int, int] = (0, 0, 90, 50), *, height: int = 50, width: int = 90) -> Frame:
    """Of a model input of 128 px."""
    return Frame.of_crop(128, crop, height=height, width=width)


def tables(of: Frame, low: int = 32) -> FrameTables:
    """On the CPU."""
    return tables_of(of, (low, low), CPU)


def slots(of: Frame, masks: list[int], *, room: int, capacity: int = 20_000) -> Slots:
    """The first `len(masks)` of `room` slots count."""
    mask_V = torch.zeros(room, dtype=torch.int32)
    mask_V[: len(masks)] = torch.tensor(masks, dtype=torch.int32)
    x0, y0 = of.crop_xyxy[:2]
    return Slots(
        mask_V, torch.tensor([len(masks)], dtype=torch.int32), x0 * of.height + y0, of.height, capacity
    )


def crowd(count: int, *, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Boxes on a small field, some without area, and which are alive."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 30, (count, 2))], axis=1)
    return torch.from_numpy(boxes.astype(np.int32)), torch.from_numpy(rng.random(count) < 0.8)


def without_room(of: Slots, capacity: int) -> Slots:
    """The same slots with little room for changes."""
    return replace(of, capacity=capacity)
