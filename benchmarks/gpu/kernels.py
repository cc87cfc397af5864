"""Each kernel alone, at ViT-H's shapes: against float32 torch, its time, and the time that was predicted.

Predictions are arithmetic over an H100's rates (600 TFLOP/s in bfloat16 where products are large, 2.5 TB/s):
they are there to be wrong, and to say by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.clock import milliseconds
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
    choose_ops,
)
from maskmill.pipeline.gpu.torch_ops import TorchOps

LEVELS = Levels(-1.0, 0.0, 1.0)


class Shapes:
    """ViT-H at 1,024 points, or what stands for it on a CPU."""

    def __init__(self, device: torch.device, *, tiny: bool) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self.grid, self.heads, self.channels = (8, 2, 48) if tiny else (64, 16, 80)
        self.points, self.window = (8, 3) if tiny else (1024, 14)
        self.pixel, self.fine, self.rows = (32, 16, 51) if tiny else (64, 32, 98)
        self.height, self.width = (30, 40) if tiny else (1500, 2250)
        self._generator = torch.Generator(device).manual_seed(0)

    def values(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0) -> Tensor:
        """Normal numbers."""
        made = torch.randn(*shape, generator=self._generator, device=self.device) * scale
        return made.to(dtype or self.dtype)

    def attention(self, window: int) -> AttentionInputs:
        """One image, one layer."""
        grid, heads = self.grid, self.heads
        down, across = (self.values(1, grid, grid, heads, window) for _ in range(2))
        qkv = self.values(1, grid, grid, 3, heads, self.channels)
        return AttentionInputs(qkv, self.values(3, heads, self.channels), down, across, window)

    def head(self) -> tuple[HeadWeights, HeadImage, HeadPrompts]:
        """A grid's prompts, half of whose outputs are wanted."""
        tokens, pixel, fine, points = self.grid**2, self.pixel, self.fine, self.points
        plain = torch.float32
        weights = HeadWeights(
            self.values(1, 4, pixel, dtype=plain),
            self.values(4, pixel, dtype=plain),
            self.values(pixel, dtype=plain),
            self.values(pixel, dtype=plain),
            1e-6,
            self.values(4, pixel, fine, scale=pixel**-0.5),
            self.values(fine, dtype=plain),
        )
        keep = (self.values(points, 3, dtype=plain) > 0).to(torch.uint8)
        prompts = HeadPrompts(
            self.values(points, self.rows, tokens, scale=0.1),
            self.values(points, self.rows, 4, pixel),
            self.values(points, tokens, dtype=plain),
            self.values(points, tokens, dtype=plain),
            self.values(points, 3, fine, dtype=plain),
            keep,
        )
        return weights, HeadImage(self.values(tokens, 4, pixel), None, None, self.grid), prompts

    def masks(self) -> tuple[Tensor, Tensor, FrameTables]:
        """Smooth logits, a third of them wanted."""
        low = 4 * self.grid
        coarse = self.values(3 * self.points, 1, 5, 5, dtype=torch.float32, scale=5) - 4
        logits = torch.nn.functional.interpolate(coarse, (low, low), mode="bilinear")[:, 0].contiguous()
        keep = (torch.arange(len(logits), device=self.device) % 3 == 0).to(torch.uint8)
        side = 16 * self.grid
        frame = Frame.of_image(side, height=self.height, width=self.width)
        return logits, keep, tables_of(frame, (low, low), self.device)


def measure_kernels(device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """Error, milliseconds and prediction of each step that has a kernel."""
    shapes, ops, slow = Shapes(device, tiny=tiny), choose_ops(device), TorchOps()
    found: dict[str, Any] = {"by": type(ops).__name__}
    tokens, width = shapes.grid**2, shapes.heads * shapes.channels
    for name, window, keys in (("global", shapes.grid, tokens), ("windows", shapes.window, shapes.window**2)):
        inputs = shapes.attention(window)
        exact = slow.attention(_float(inputs))
        predicted = 1e3 * 4 * tokens * keys * width / 400e12
        found[f"attention, {name}"] = _entry(lambda: ops.attention(inputs), exact, predicted, device)  # noqa: B023
    found["head"] = _head(shapes, ops, slow)
    found |= _after(shapes, ops, slow)
    return found


def _head(shapes: Shapes, ops: DeviceOps, slow: TorchOps) -> dict[str, Any]:
    weights, image, prompts = shapes.head()
    low, some = 4 * shapes.grid, min(8, shapes.points)
    out = torch.zeros(shapes.points, 3, low, low, device=shapes.device)
    exact = torch.zeros(some, 3, low, low, device=shapes.device)
    slow.head(_float(weights), _float(image), _float(_first(prompts, some)), exact)

    def work() -> Tensor:
        ops.head(weights, image, prompts, out)
        return out[:some]

    rows_bytes = prompts.rows_PKS.nbytes + out.nbytes / 2
    return _entry(work, exact, 1e3 * rows_bytes / 2.5e12, shapes.device)


def _after(shapes: Shapes, ops: DeviceOps, slow: TorchOps) -> dict[str, Any]:
    """Measuring, suppression, runs; counts are equal where a device fuses as the CPU does."""
    logits, keep, tables = shapes.masks()
    some = slice(24)
    exact = slow.measure(logits[some], keep[some], tables, LEVELS)
    wanted = keep[some].bool()

    def differing() -> int:
        """Pixels that fall on another side, of the masks compared."""
        ours = ops.measure(logits[some], keep[some], tables, LEVELS)
        return int((ours[wanted] - exact[wanted]).abs().amax())

    found: dict[str, Any] = {
        "measure": {
            "ms": milliseconds(lambda: ops.measure(logits, keep, tables, LEVELS), shapes.device),
            "predicted_ms": 1.5,
            "most_pixels_differ": differing(),
        }
    }
    box = ops.measure(logits, keep, tables, LEVELS)[:, 3:]
    alive = keep.bool()
    equal = torch.equal(ops.suppress(box, alive, 0.7), slow.suppress(box, alive, 0.7))
    suppress_ms = milliseconds(lambda: ops.suppress(box, alive, 0.7), shapes.device)
    found["suppress"] = {"ms": suppress_ms, "predicted_ms": 0.2, "equal": equal}

    masks = torch.arange(0, len(logits), 3, device=shapes.device, dtype=torch.int32)[:100]
    number = torch.tensor([len(masks)], dtype=torch.int32, device=shapes.device)
    slots = Slots(masks, number, 0, shapes.height, 2**12 if len(logits) < 100 else 2**20)
    runs_ms = milliseconds(lambda: ops.runs(logits, slots, tables, 0.0), shapes.device)
    few = Slots(masks[:4], number.clamp_max(4), 0, shapes.height, 2**16)
    ours, theirs = ops.runs(logits, few, tables, 0.0), slow.runs(logits, few, tables, 0.0)
    same = torch.equal(ours.ends_V, theirs.ends_V) and torch.equal(ours.places, theirs.places)
    found["runs"] = {"ms": runs_ms, "predicted_ms": 0.5, "equal": same}
    return found


def _entry(
    work: Callable[[], Tensor], exact: Tensor, predicted_ms: float, device: torch.device
) -> dict[str, Any]:
    error = (work().float() - exact).abs().amax() / exact.abs().amax()
    return {
        "ms": milliseconds(work, device),
        "predicted_ms": round(predicted_ms, 3),
        "relative_error": float(f"{float(error):.2e}"),
    }


def _float(given: Any) -> Any:
    """The same with numbers in float32."""
    parts = {
        name: value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in vars(given).items()
    }
    return type(given)(**parts)


def _first(prompts: HeadPrompts, count: int) -> HeadPrompts:
    return HeadPrompts(**{name: value[:count] for name, value in vars(prompts).items()})
