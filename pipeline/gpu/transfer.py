"""What a grid's survivors are, as one row of int32 that is copied to the host once, and read there.

    [kept masks, changes, bits of the cancellation, V masks' places, V predicted IoUs' bits, V x 7 measures,
     V ends, places of changes]

The copy is begun and not waited for; waiting for the last grid's copy is the engine's one wait an image. What
did not fit (more masks than slots, more changes than room) or lost digits is told, never cut off in silence.

Shapes: V slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskmill.pipeline.decoder.decoder import MAX_CANCELLATION
from maskmill.pipeline.gpu.ops import Runs
from maskmill.pipeline.gpu.survivors import Survivors
from maskmill.pipeline.masks.measure import MaskBatch, object_column
from maskmill.pipeline.rle import from_places

Ints32 = npt.NDArray[np.int32]
_HEADER = 3


class Redo(Exception):
    """This grid must be done another way; the message says why."""


@dataclass(frozen=True, eq=False)
class GridPlace:
    """What the host knows of a grid.

    Attributes:
        corner_xy: of the crop, in px of the image.
        crop_index: place of the crop in the image's list.
        height, width: of the image in px.
        points_xy_P2: float64, the prompts, in px of the image.
        outputs: of a prompt.
    """

    corner_xy: tuple[int, int]
    crop_index: int
    height: int
    width: int
    points_xy_P2: npt.NDArray[np.float64]
    outputs: int


@dataclass(frozen=True, eq=False)
class Transfer:
    """A copy under way.

    Attributes:
        packed: int32, on the host.
        event: reached when the copy is done; None where there was nothing to wait for.
        slots: V.
        place: of the grid.
    """

    packed: Tensor
    event: Any
    slots: int
    place: GridPlace

    def masks(self) -> MaskBatch:
        """The survivors with their run lengths, best first; the copy is there.

        Raises:
            Redo: something didn't fit, or the low-rank form lost digits.
        """
        return _unpack(self.packed.numpy(), self.slots, self.place)


def wait(sent: Sequence[Transfer]) -> None:
    """Until all of an image's copies are there: until the last is, as a device copies in order."""
    if sent[-1].event is not None:
        sent[-1].event.synchronize()


def send(
    found: Survivors, iou_N: Tensor, measures_N7: Tensor, runs: Runs, cancellation: Tensor, place: GridPlace
) -> Transfer:
    """Begins the copy.

    Args:
        found: the survivors.
        iou_N: float32, predicted.
        measures_N7: int32.
        runs: of the survivors.
        cancellation: float32, of the decoder.
        place: of the grid.
    """
    mask_V = found.mask_V.long()
    packed = torch.cat(
        [
            found.num_1,
            runs.ends_V[-1:],
            cancellation.view(1).view(torch.int32),
            found.mask_V,
            iou_N.index_select(0, mask_V).view(torch.int32),
            measures_N7.index_select(0, mask_V).flatten(),
            runs.ends_V,
            runs.places,
        ]
    )
    event = None
    if packed.device.type == "cuda":
        on_host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        on_host.copy_(packed, non_blocking=True)
        cuda: Any = torch.cuda
        event = cuda.Event()
        event.record()
        packed = on_host
    return Transfer(packed, event, len(mask_V), place)


def _unpack(packed: Ints32, slots: int, place: GridPlace) -> MaskBatch:
    num, changes = packed[:2].tolist()
    mask_V, iou_V, measures, ends_V, places = np.split(
        packed[_HEADER:], np.cumsum([slots, slots, 7 * slots, slots])
    )

    # What must be done another way
    cancellation = float(packed[2:3].view(np.float32)[0])
    if not cancellation <= MAX_CANCELLATION:
        raise Redo(f"the decoder's low-rank form lost digits (cancellation {cancellation:.3g})")
    if num > slots:
        raise Redo(f"{num} masks survive, {slots} have room")
    if changes > len(places):
        raise Redo(f"the masks' outlines change {changes} times, {len(places)} have room")

    measures_N7 = measures.reshape(slots, 7)[:num].astype(np.int64)
    x0, y0 = place.corner_xy
    inner, outer = measures_N7[:, 2].astype(np.float32), measures_N7[:, 0].astype(np.float32)
    cut = [0, *ends_V[:num].tolist()]
    rles = [
        from_places(places[first:last], height=place.height, width=place.width)
        for first, last in pairwise(cut)
    ]
    prompt_N, token_N = np.divmod(mask_V[:num].astype(np.int64), place.outputs)
    return MaskBatch(
        predicted_iou_N=iou_V[:num].view(np.float32),
        stability_N=inner / outer,
        area_px_N=measures_N7[:, 1],
        box_xyxy_N4=measures_N7[:, 3:] + np.array([x0, y0, x0, y0]),
        point_xy_N2=place.points_xy_P2[prompt_N],
        output_token_N=token_N,
        crop_N=np.full(num, place.crop_index),
        mask_N=object_column(rles),
    )
