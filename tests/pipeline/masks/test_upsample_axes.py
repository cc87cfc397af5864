"""The tables of one axis: torch's taps and weights, and groups that cover every output once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskmill.pipeline.masks.upsample_axes import compose_axis

SIZES = [(16, 64, 64, 40), (16, 64, 43, 150), (8, 32, 31, 31), (64, 256, 200, 3), (4, 16, 1, 5)]


@pytest.mark.parametrize(("num_low", "image_size", "num_input", "num_output"), SIZES)
def test_both_interpolations_of_a_line_are_torch_s(
    num_low: int, image_size: int, num_input: int, num_output: int
) -> None:
    line = torch.from_numpy(np.random.default_rng(0).normal(size=num_low).astype(np.float32))
    middle = F.interpolate(line[None, None], image_size, mode="linear", align_corners=False)
    wanted = F.interpolate(middle[..., :num_input], num_output, mode="linear", align_corners=False)[0, 0]

    axis = compose_axis(num_low, image_size, num_input, num_output)
    low = line.numpy()
    on_middle = (low[axis.middle_taps] * axis.middle_weights).sum(0)
    got = (on_middle[axis.taps] * axis.weights).sum(0)
    assert np.allclose(got, wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize(("num_low", "image_size", "num_input", "num_output"), SIZES)
def test_groups_cover_every_output_once_and_bound_its_taps(
    num_low: int, image_size: int, num_input: int, num_output: int
) -> None:
    axis = compose_axis(num_low, image_size, num_input, num_output)
    assert axis.group_start[0] == 0 and axis.group_start[-1] == num_output
    assert (np.diff(axis.group_start) > 0).all()
    for group, (start, stop) in enumerate(zip(axis.group_start[:-1], axis.group_start[1:], strict=True)):
        low = axis.middle_taps[:, axis.taps[:, start:stop].ravel()]
        assert (axis.group_taps[0, group], axis.group_taps[1, group]) == (low.min(), low.max())
    first = [int((axis.group_taps[0] < low).sum()) for low in range(num_low + 1)]
    last = [int((axis.group_taps[1] < low).sum()) for low in range(num_low + 1)]
    assert (axis.starts_at.tolist(), axis.ends_at.tolist()) == (first, last)
