"""Each kernel on Triton's interpreter beside torch's operations; each compiled for sm_90 without spills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: its kernels are not used either")

from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.masks.upsample import measure, runs_batch
from maskmill.pipeline.rle import area_px, from_places
from tests.pipeline.gpu import cases, offline
from tests.pipeline.gpu.interpreter import Interpreted, interpreted  # noqa: F401  (a fixture)

SIZES = [((8, 8), 8, 16), ((7, 5), 3, 32), ((5, 9), 14, 80), ((6, 6), 4, 24)]


@pytest.mark.parametrize(("size_hw", "window", "channels"), SIZES)
@pytest.mark.parametrize("positions", [True, False])
def test_attention(
    interpreted: Interpreted,  # noqa: F811
    size_hw: tuple[int, int],
    window: int,
    channels: int,
    positions: bool,
) -> None:
    """Windows over the border, heads of a width that is no power of two, one block of keys and several."""
    inputs = cases.attention(size_hw, window, channels, positions=positions)
    by_kernel, by_torch = interpreted(cases.both, "attention", inputs)
    torch.testing.assert_close(by_kernel, by_torch, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("finer", [False, True])
def test_head(interpreted: Interpreted, finer: bool) -> None:  # noqa: F811
    """Wanted outputs alone are written, each at its own place."""
    weights, image, prompts, shape = cases.head(finer=finer)
    by_kernel, by_torch = interpreted(cases.both, "head", weights, image, prompts, shape)
    torch.testing.assert_close(by_kernel, by_torch, atol=2e-4, rtol=2e-5)
    unwanted = prompts.keep_PM == 0
    assert (by_kernel[unwanted] == 7).all() and (by_kernel[~unwanted] != 7).any(dim=(1, 2)).all()


FRAMES = [
    cases.frame(),
    cases.frame((0, 0, 128, 64), height=64, width=128),
    cases.frame((30, 11, 211, 140), height=150, width=230),
]


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_measure(interpreted: Interpreted, frame: Any) -> None:  # noqa: F811
    """As torch's operations and as the compiled loops of the CPU: the interpreter fuses nothing, so a pixel
    on the edge may fall on the other side; at exact scales none does."""
    logits, keep = cases.blobs(7), torch.tensor([1, 1, 1, 1, 0, 1, 1], dtype=torch.uint8)
    by_kernel, by_torch = interpreted(cases.both, "measure", logits, keep, cases.tables(frame), cases.LEVELS)
    kept = keep.bool()
    exact = frame.crop_width == 128
    assert (by_kernel[kept] - by_torch[kept]).abs().max() <= (0 if exact else 2)
    assert by_kernel[~kept][:, 1].sum() == 0, "what isn't kept isn't measured"

    oracle = measure(logits.numpy(), frame, threads=1)
    ours = by_torch.numpy()
    np.testing.assert_array_equal(ours[:, 1], oracle.area_px)
    np.testing.assert_array_equal(ours[:, 0], oracle.outer_px)
    np.testing.assert_array_equal(ours[:, 2], oracle.inner_px)
    some = oracle.area_px > 0
    np.testing.assert_array_equal(ours[some, 3:], oracle.box_xyxy[some])


@pytest.mark.parametrize("max_iou", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_suppress(interpreted: Interpreted, max_iou: float, seed: int) -> None:  # noqa: F811
    """As torchvision's, best first, whatever the limit."""
    boxes, alive = cases.crowd(100, seed=seed)
    by_kernel, by_torch = interpreted(cases.both, "suppress", boxes, alive, max_iou)
    rows = alive.nonzero()[:, 0].numpy()
    score = -np.arange(len(rows), dtype=np.float32)
    expected = rows[masks.suppress(boxes.numpy().astype(np.int64)[rows], score, max_iou=max_iou)]
    assert by_torch.nonzero()[:, 0].tolist() == expected.tolist()
    assert by_kernel.tolist() == by_torch.tolist()


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_runs(interpreted: Interpreted, frame: Any) -> None:  # noqa: F811
    """The runs of the CPU's loops, for the slots that count, in their order."""
    logits, wanted = cases.blobs(7), [5, 1, 0, 2, 6]
    slots = cases.slots(frame, wanted, room=8)
    by_kernel, by_torch = interpreted(cases.both, "runs", logits, slots, cases.tables(frame), 0.0)
    expected = runs_batch(logits[wanted].numpy(), frame, threads=1)
    for runs, exact in ((by_torch, True), (by_kernel, frame.crop_width == 128)):
        ends = [0, *runs.ends_V.tolist()]
        assert ends[len(wanted)] == ends[-1], "slots that don't count change nothing"
        for slot, rle in enumerate(expected):
            places = runs.places[ends[slot] : ends[slot + 1]].numpy()
            ours = from_places(places, height=frame.height, width=frame.width)
            if exact:
                assert ours == rle
            assert abs(_pixels(places) - area_px(rle)) <= (0 if exact else 2)


def test_runs_without_room(interpreted: Interpreted) -> None:  # noqa: F811
    """Nothing is written beyond the room, and the ends say how much there would have been."""
    frame = FRAMES[1]
    slots = cases.slots(frame, [3, 5, 6], room=4)
    tables, logits = cases.tables(frame), cases.blobs(7)
    whole, _ = interpreted(cases.both, "runs", logits, slots, tables, 0.0)
    short = interpreted(cases.both, "runs", logits, cases.without_room(slots, 10), tables, 0.0)
    for runs in short:
        assert runs.ends_V.tolist() == whole.ends_V.tolist() and len(runs.places) == 10
        assert runs.places.tolist() == whole.places[:10].tolist()


def _pixels(places: Any) -> int:
    """Of a mask that changes at these places."""
    return int((places[1::2].astype(np.int64) - places[::2]).sum())


@pytest.mark.parametrize("name", offline.CASES)
def test_compiles_without_spills(name: str, tmp_path: Path) -> None:
    """For sm_90, at the shapes of the public models, within a streaming multiprocessor's shared memory."""
    resources = offline.compiled(offline.CASES[name], tmp_path)
    assert resources.spilled_bytes == 0, resources
    assert 0 < resources.registers <= 255 and resources.shared_bytes <= 227 * 1024, resources
