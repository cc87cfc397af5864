"""One axis of both interpolations as tables: taps, weights, and the groups that the compiled loops walk.

Both interpolations are separable, so the rows' table and the columns' table say all of it. Weights are
torch's, to the last bit. How they are used: upsample.py and upsample_loops.py.

Shape legend: W the logits' length along the axis; M the middle grid; L the outputs; G groups.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint8]


class Axis(NamedTuple):
    """One axis of both interpolations: low-resolution logits -> middle grid -> output.

    The middle grid holds only the places that an output uses. A group is a range of outputs with the same
    first tap among the logits; `group_taps` bounds all their taps, both ends included.
    """

    middle_taps: Indices  # [2, M] into the logits
    middle_weights: Floats  # [2, M]
    taps: Indices  # [2, L] into the middle grid
    weights: Floats  # [2, L]
    group_start: Indices  # [G + 1] into the outputs
    group_taps: Indices  # [2, G] into the logits
    starts_at: Indices  # [W + 1] the first group whose first tap is not below this logit
    ends_at: Indices  # [W + 1] the first group whose last tap is not below it


@lru_cache(maxsize=256)
def compose_axis(num_low: int, image_size: int, num_input: int, num_output: int) -> Axis:
    """The table of one axis: logits to the model's input, its un-padded part to the crop.

    Args:
        num_low: logits along the axis.
        image_size: side of the model's square input in px, padding included.
        num_input: its un-padded part in px.
        num_output: of the crop in px.
    """
    low, low_weights = _linear_taps(num_low, image_size)
    second, weights = _linear_taps(num_input, num_output)
    used, taps = np.unique(second, return_inverse=True)
    middle = low[:, used]

    # Groups: outputs with the same first tap among the logits
    first_tap, last_tap = low[0, second[0]], low[1, second[1]]
    group_start = np.flatnonzero(np.diff(first_tap, prepend=-1, append=num_low))
    group_taps = np.stack([first_tap[group_start[:-1]], last_tap[group_start[1:] - 1]])
    return Axis(
        middle_taps=np.ascontiguousarray(middle, np.int32),
        middle_weights=np.ascontiguousarray(low_weights[:, used]),
        taps=np.ascontiguousarray(taps.reshape(second.shape), np.int32),
        weights=weights,
        group_start=group_start.astype(np.int32),
        group_taps=np.ascontiguousarray(group_taps, np.int32),
        starts_at=np.searchsorted(group_taps[0], np.arange(num_low + 1)).astype(np.int32),
        ends_at=np.searchsorted(group_taps[1], np.arange(num_low + 1)).astype(np.int32),
    )


def _linear_taps(num_in: int, num_out: int) -> tuple[Ints, Floats]:
    """Indices int64[2, num_out] and weights of torch's linear interpolation, align_corners=False."""
    scale = np.float32(num_in) / np.float32(num_out)
    centre = np.arange(num_out, dtype=np.float32) + np.float32(0.5)
    # one rounding for product and difference: torch's is fused
    source = np.maximum((np.float64(scale) * centre - 0.5).astype(np.float32), np.float32(0))
    first = np.minimum(source.astype(np.int64), num_in - 1)
    second_weight = np.clip(source - first.astype(np.float32), np.float32(0), np.float32(1))
    second = np.minimum(first + 1, num_in - 1)
    return np.stack([first, second]), np.stack([np.float32(1) - second_weight, second_weight])
