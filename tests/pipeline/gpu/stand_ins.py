"""A device whose arithmetic is taken out: every step gives what was prepared, as a graph's replay does.

The survivors are real masks, so that what the host makes of them costs what it costs.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.gpu.axis_tables import FrameTables
from maskmill.pipeline.gpu.engine import CHANGES, SLOTS, DeviceMasks
from maskmill.pipeline.gpu.grid_decoder import GridMasks
from maskmill.pipeline.gpu.ops import (
    AttentionInputs,
    HeadImage,
    HeadPrompts,
    HeadWeights,
    Levels,
    Runs,
    Slots,
)
from maskmill.pipeline.gpu.torch_ops import TorchOps
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings

_VIEWS = ("view", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "permute", "t", "alias",
          "detach", "split", "unbind", "as_strided", "_unsafe_view", "_reshape_alias", "diagonal", "narrow",
          "empty", "empty_like", "new_empty", "lift_fresh", "empty_strided", "chunk")  # fmt: skip

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal", "unique_dim")


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that a device would run, by name, and refuses those that would wait for it.

    Attributes:
        counted: name -> how often; views and allocations left out.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS or (name in ("index", "index_put_", "index_put") and _by_flags(args[1])):
            raise AssertionError(f"{name} waits for the device")
        if name not in _VIEWS:
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


def _by_flags(indices: Any) -> bool:
    """Whether a tensor is indexed by truth values, whose number a device must tell."""
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices)


class CountedOps(TorchOps):
    """Torch's operations as one call each, as kernels are; what runs within is not counted."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def attention(self, inputs: AttentionInputs) -> Tensor:
        self.calls["attention"] += 1
        with _uncounted():
            return super().attention(inputs)

    def head(self, weights: HeadWeights, image: HeadImage, prompts: HeadPrompts, out_PMhw: Tensor) -> None:
        self.calls["head"] += 1
        with _uncounted():
            super().head(weights, image, prompts, out_PMhw)

    def measure(self, logits_Nhw: Tensor, keep_N: Tensor, tables: FrameTables, levels: Levels) -> Tensor:
        self.calls["measure"] += 1
        with _uncounted():
            return super().measure(logits_Nhw, keep_N, tables, levels)

    def suppress(self, box_xyxy_N4: Tensor, alive_N: Tensor, max_iou: float) -> Tensor:
        self.calls["suppress"] += 4  # the kernel, a transposition, two conversions
        with _uncounted():
            return super().suppress(box_xyxy_N4, alive_N, max_iou)

    def runs(self, logits_Nhw: Tensor, slots: Slots, tables: FrameTables, level: float) -> Runs:
        self.calls["runs"] += 5  # the kernel twice, a sum, two fillings
        with _uncounted():
            return super().runs(logits_Nhw, slots, tables, level)


def _uncounted() -> Any:
    return torch.utils._python_dispatch._disable_current_modes()


class Calls:
    """Counts calls of Python functions, in this thread and in those that begin meanwhile.

    Attributes:
        made: how many.
    """

    def __init__(self) -> None:
        self.made = 0

    def __enter__(self) -> Calls:
        threading.setprofile(self._count)
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.made += event == "call"


class ArithmeticTakenOut:
    """The device engine over eight pictures of 1500x2250, 1,024 points each; encoder, decoder, measures give
    what was prepared: 100 survivors of 300 columns.

    Args:
        make_sam: builds a tiny SAM; called with `image_size`.
    """

    images: tuple[Any, ...] = (np.zeros((1500, 2250, 3), np.uint8),) * 8

    def __init__(self, make_sam: Callable[..., Any]) -> None:
        side = 64
        segmenter = SamSegmenter(make_sam(image_size=side), device="cpu", batched=True)
        segmenter.images_per_batch = len(self.images)
        self._stage = device_masks(
            segmenter, MaskSettings(), prepared_rectangles(3072, 100, height=1500, width=2250)
        )
        resized = np.zeros((43, side, 3), np.uint8)
        segmenter._resized = lambda image, frame: resized  # type: ignore[method-assign]
        features, logits = torch.zeros(len(self.images), 64, 4, 4), torch.zeros(1024, 3, 16, 16)
        segmenter._batch_encoder.region.work = lambda *_: features
        iou_PM = torch.linspace(1, 0.9, 3072).view(1024, 3)
        prepared = GridMasks(iou_PM, iou_PM > 0.88, logits, torch.ones(()))
        self._stage.grid.work = lambda *_: prepared

    def __call__(self) -> Sequence[AnnotatedImage]:
        return self._stage(self.images)


def device_masks(segmenter: SamSegmenter, settings: MaskSettings, ops: Any) -> DeviceMasks:
    """The engine, where no image may be done again."""
    parts = segmenter.grid_parts()
    assert parts is not None

    def never(image: Any) -> AnnotatedImage:
        raise AssertionError("nothing is done again here")

    return DeviceMasks(segmenter, parts, settings, ops, never)


class PreparedOps:
    """Steps that give what a real run gave once."""

    def __init__(self, measures_N7: Tensor, kept_N: Tensor, runs: Runs) -> None:
        self._measures_N7, self._kept_N, self._runs = measures_N7, kept_N, runs

    def measure(self, *_: Any) -> Tensor:
        return self._measures_N7

    def suppress(self, *_: Any) -> Tensor:
        return self._kept_N

    def runs(self, *_: Any) -> Runs:
        return self._runs


def prepared_rectangles(masks: int, kept: int, *, height: int, width: int) -> PreparedOps:
    """`kept` rectangles of 300 x 200 px, strewn over the image."""
    rng = np.random.default_rng(0)
    left, top = rng.integers(0, width - 300, kept), rng.integers(0, height - 200, kept)
    measures_N7 = torch.zeros(masks, 7, dtype=torch.int32)
    measures_N7[:, :3] = 60_000
    near, far = np.stack([left, top], axis=1), np.stack([left + 299, top + 199], axis=1)
    measures_N7[:kept, 3:] = torch.from_numpy(np.concatenate([near, far], axis=1).astype(np.int32))
    starts = (left[:, None] + np.arange(300)) * height + top[:, None]
    places = np.stack([starts, starts + 200], axis=2).reshape(-1).astype(np.int32)
    room = torch.zeros(CHANGES, dtype=torch.int32)
    room[: len(places)] = torch.from_numpy(places)
    ends_V = torch.arange(1, SLOTS + 1, dtype=torch.int32).clamp_max(kept) * 600
    return PreparedOps(measures_N7, (torch.arange(masks) < kept).int(), Runs(ends_V, room))
