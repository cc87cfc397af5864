"""The arithmetic floor: what the products of the engine would take at the speed of a large product.

GFLOP are counted while the engine runs (torch's FlopCounterMode: 2 a multiply-add, matrix products and
convolutions only), for one embedding and for the points of an 8x8 grid, of which those pass that pass; the
rest of the grid is in proportion. The peak is a product of 2048 x 2048 x 2048, the best of several, in the
number format asked for. Softmax, norms, GELU, copies and all work on masks count nothing, so the floor cannot
be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from maskmill.pipeline.machine.speeds import product_gflops
from maskmill.pipeline.segmenters.base import point_prompts
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings

SIDE = 8


def _product_flop(into: Any, left: Any, right: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of the shapes of `into += left @ right`."""
    return 2 * int(np.prod(left)) * int(right[-1])


_IN_PLACE = {  # which FlopCounterMode does not know
    torch.ops.aten.addmm_: _product_flop,
    torch.ops.aten.baddbmm_: _product_flop,
}


@torch.inference_mode()
def count_gflop(
    segmenter: SamSegmenter, image: npt.NDArray[np.uint8], settings: MaskSettings
) -> tuple[dict[str, float], float]:
    """GFLOP of one image by step (embed, decode, mask_head), and the share of masks that pass predicted IoU.

    Args:
        image: uint8[H, W, 3]; crops are not counted.
    """
    axis = (np.arange(SIDE) + 0.5) / SIDE
    points_xy = np.stack(np.meshgrid(axis * image.shape[1], axis * image.shape[0]), -1).reshape(-1, 2)
    (embedding,), embed = _counted(lambda: segmenter.embed([image]))
    promptable, prepare = _counted(lambda: segmenter.prompt(embedding))
    prediction, predict = _counted(lambda: promptable.predict(point_prompts(points_xy)))
    keep_PM = prediction.predicted_iou_PM > settings.predicted_iou
    _, head = _counted(lambda: prediction.masks(keep_PM))
    batches = settings.points_per_side**2 / SIDE**2
    gflop = {"embed": embed, "decode": prepare + predict * batches, "mask_head": head * batches}
    return {name: round(value, 2) for name, value in gflop.items()}, round(float(keep_PM.float().mean()), 3)


def _counted(work: Callable[[], Any]) -> tuple[Any, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees its own thread only
    try:
        with FlopCounterMode(display=False, custom_mapping=_IN_PLACE) as counter:
            result = work()
    finally:
        torch.set_num_threads(threads)
    return result, counter.get_total_flops() * 1e-9


def against_floor(
    gflop: Mapping[str, float], seconds: Mapping[str, float | None], dtype: torch.dtype
) -> dict[str, Any]:
    """Each step's floor in seconds, and which share of its time that is."""
    peak = product_gflops(dtype)
    floor_s = {name: round(value / peak, 4) for name, value in gflop.items()}
    total = sum(value or 0.0 for value in seconds.values())
    share = {name: round(floor_s[name] / (seconds.get(name) or float("inf")), 2) for name in floor_s}
    return {
        "peak_gflops": peak,
        "gflop": dict(gflop),
        "floor_seconds": floor_s,
        "floor_share": {**share, "all": round(sum(floor_s.values()) / total, 2) if total else None},
    }
