"""The steps that have kernels, behind one protocol, and the choice between kernels and plain torch.

Everything else of the engine is torch's own operations. An implementation never waits for the device: no
result's shape or value is looked at.

    triton_ops.py  kernels, on CUDA, or anywhere under TRITON_INTERPRET=1
    torch_ops.py   the same numbers by torch, on any device; the kernels' slow twin

Shapes: P prompts, M outputs of a prompt, N = P x M masks, h x w low-resolution logits, S image tokens, K rows
of Z, E and G channels of the mask head's pixels, V slots of survivors, L pixels along a side.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from maskmill.pipeline.gpu.axis_tables import FrameTables

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """One attention layer over a batch of images, in windows or whole.

    Attributes:
        qkv_BHW3ND: the projection of normalised tokens, bias included.
        bias_3ND: that bias: keys and values beyond the border.
        down_BHWNk, across_BHWNk: what a query adds to the scores of each row and column of its window; None
            where the model has no relative positions.
        window: its side in tokens; the image's longer side for global attention.
    """

    qkv_BHW3ND: Tensor
    bias_3ND: Tensor
    down_BHWNk: Tensor | None
    across_BHWNk: Tensor | None
    window: int


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The mask head's weights, laid out by pixel under a token and by pixel under a pixel.

    Attributes:
        first_C4E: the first convolution; what a prompt's B is multiplied with.
        constant_4E: its bias, and the image tokens' shift through it.
        norm_weight_E, norm_bias_E, eps: LayerNorm's.
        second_4EG, second_bias_G: the second convolution.
    """

    first_C4E: Tensor
    constant_4E: Tensor
    norm_weight_E: Tensor
    norm_bias_E: Tensor
    eps: float
    second_4EG: Tensor
    second_bias_G: Tensor


@dataclass(frozen=True, eq=False)
class HeadImage:
    """What the mask head has of an image, for all its prompts.

    Attributes:
        shared_S4E: X through the first convolution.
        middle_S4E, fine_S44G: the image's finer maps, of families that add them; None for others.
        across: image tokens of a row.
    """

    shared_S4E: Tensor
    middle_S4E: Tensor | None
    fine_S44G: Tensor | None
    across: int


@dataclass(frozen=True, eq=False)
class HeadPrompts:
    """What the mask head has of P prompts.

    Attributes:
        rows_PKS: Z.
        mapped_PK4E: B through the first convolution.
        rho_PS, weight_PS: rho, and rho alpha (decoder/lowrank.py's (1)).
        direction_PMG: the hypernetworks' outputs.
        keep_PM: uint8, 1 for outputs that are wanted.
    """

    rows_PKS: Tensor
    mapped_PK4E: Tensor
    rho_PS: Tensor
    weight_PS: Tensor
    direction_PMG: Tensor
    keep_PM: Tensor


@dataclass(frozen=True)
class Levels:
    """Cut-offs in logits: a pixel is mask above `level`; stability compares those above the other two."""

    outer: float
    level: float
    inner: float


class DeviceOps(Protocol):
    """The steps that have kernels."""

    def attention(self, inputs: AttentionInputs) -> Tensor:
        """[B, H, W, N, D]: attention with decomposed relative positions, before the output projection."""
        ...

    def head(self, weights: HeadWeights, image: HeadImage, prompts: HeadPrompts, out_PMhw: Tensor) -> None:
        """Low-resolution logits of the wanted outputs, each at its own place; others stay as they are."""
        ...

    def measure(self, logits_Nhw: Tensor, keep_N: Tensor, tables: FrameTables, levels: Levels) -> Tensor:
        """int32[N, 7]: counts above the three levels, ascending, and the box in the crop's frame.

        Rows of masks that aren't kept mean nothing; a mask without a pixel has a far corner below its near
        one.
        """
        ...

    def suppress(self, box_xyxy_N4: Tensor, alive_N: Tensor, max_iou: float) -> Tensor:
        """int32[N], 1 for what greedy suppression keeps.

        Args:
            box_xyxy_N4: int32, best first.
            alive_N: bool: what takes part.
            max_iou: the limit.
        """
        ...

    def runs(self, logits_Nhw: Tensor, slots: Slots, tables: FrameTables, level: float) -> Runs:
        """Where the masks in the slots change, column by column."""
        ...


@dataclass(frozen=True, eq=False)
class Slots:
    """The masks whose run lengths are wanted.

    Attributes:
        mask_V: int32, places among N; those from `num_1` on mean nothing.
        num_1: int32[1], on the device.
        corner: pixels of the image before the crop's first, column by column.
        image_height: in px.
        capacity: how many changes there is room for.
    """

    mask_V: Tensor
    num_1: Tensor
    corner: int
    image_height: int
    capacity: int


@dataclass(frozen=True, eq=False)
class Runs:
    """Where masks change.

    Attributes:
        ends_V: int32, up to where each slot's changes reach in `places`, beyond the capacity too.
        places: int32[capacity], pixels of the image before each change, column by column, rising in a slot.
    """

    ends_V: Tensor
    places: Tensor


MOST_SUPPRESSED = 4_096
"""Masks of one crop that the suppression kernel holds in registers."""


def kernels_run_on(device: torch.device) -> bool:
    """Whether Triton kernels run on a device here."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def choose_ops(device: torch.device) -> DeviceOps:
    """Kernels where they run, else torch's operations, which the log says on a GPU.

    Args:
        device: that the tensors are on.
    """
    if kernels_run_on(device):
        from maskmill.pipeline.gpu.triton_ops import TritonOps

        return TritonOps()
    from maskmill.pipeline.gpu.torch_ops import TorchOps

    if device.type != "cpu":
        _log.warning(
            "no triton here: attention, mask head and measuring run as torch operations on %s", device
        )
    return TorchOps()


def float32_below(limit: float) -> float:
    """The largest float32 that is not above a limit: float32 x > limit exactly where x > this."""
    rounded = torch.tensor(limit, dtype=torch.float32)
    if float(rounded) > limit:
        rounded = torch.nextafter(rounded, torch.tensor(-torch.inf))
    return float(rounded)
