"""The device engine on the CPU: the same masks, no wait, few launches, few calls of the host."""

from __future__ import annotations

import copy
import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.gpu import engine as engine_module
from maskmill.pipeline.gpu.batch_encoder import BatchEncoder
from maskmill.pipeline.gpu.encoder import DeviceEncoder
from maskmill.pipeline.gpu.grid_decoder import GridDecoder
from maskmill.pipeline.gpu.torch_ops import TorchOps
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.masks.geometry import Crop
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_student
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.verify.features import FEATURES, VOTES, features
from maskmill.pipeline.verify.verifier import load_verifier
from maskmill.pipeline.weights import weights
from tests.pipeline.gpu.stand_ins import ArithmeticTakenOut, Calls, CountedOps, Launches, device_masks

GRID = MaskSettings(points_per_side=6, predicted_iou=0.7, stability=0.8)
CROPS = MaskSettings(
    points_per_side=4, predicted_iou=0.5, stability=0.6, crop_layers=1, min_area_px=20, max_coverage=0.95,
    drop_small=True,
)  # fmt: skip
BEST = dataclasses.replace(GRID, outputs="best", predicted_iou=0.0)


def _segmenter(sam: Any, **options: Any) -> SamSegmenter:
    return SamSegmenter(copy.deepcopy(sam), device="cpu", **options)


def _same(ours: AnnotatedImage, theirs: AnnotatedImage) -> None:
    """Everything equal, predicted IoU to a rounding."""
    assert len(ours.annotations) == len(theirs.annotations)
    for one, other in zip(ours.annotations, theirs.annotations, strict=True):
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)
        assert dataclasses.replace(one, predicted_iou=other.predicted_iou) == other


def test_a_verifier_is_told_that_masks_bring_no_votes(tiny_sam: Any, photo: Any) -> None:
    """It keeps none of the candidates that suppression drops: the flag says so, and all are judged."""
    segmenter = _segmenter(tiny_sam, batched=True)
    (found,) = AutomaticMasks(segmenter, GRID)([photo])
    assert found.annotations and all(one.votes is None for one in found.annotations)
    assert found.passed_over is None
    (embedding,) = segmenter.embed([photo])
    seen = features(found, pixels_HWC=photo, embedding=embedding)
    assert not seen[:, [FEATURES.index(name) for name in VOTES]].any()
    assert seen[:, FEATURES.index("has_embedding")].all()
    said = load_verifier(None)(found, pixels_HWC=photo, embedding=embedding)
    assert len(said.masks.right_N) == len(found.annotations)
    assert ((said.masks.expected_iou_N >= 0) & (said.masks.expected_iou_N <= 1)).all()
    assert said.share_found is not None and 0 <= said.share_found <= 1


@pytest.mark.parametrize("settings", [GRID, CROPS, BEST], ids=["grid", "crops", "best"])
def test_same_masks_as_the_host(tiny_sam: Any, photo: Any, settings: MaskSettings) -> None:
    """Two photos of different shapes in one batch."""
    images = [photo[:, :180], photo[:90]]
    expected = AutomaticMasks(_segmenter(tiny_sam), settings)(images)
    found = AutomaticMasks(_segmenter(tiny_sam, batched=True), settings)(images)
    assert sum(len(one.annotations) for one in expected) > 10
    for ours, theirs in zip(found, expected, strict=True):
        _same(ours, theirs)


def test_nano_same_masks(photo: Any) -> None:
    """The model that ships."""
    sam = load_student(weights.resolve(SegmenterSettings()))
    settings = MaskSettings(points_per_side=6, predicted_iou=0.5, stability=0.6)
    (expected,) = AutomaticMasks(_segmenter(sam), settings)([photo[:120, :160]])
    (found,) = AutomaticMasks(_segmenter(sam, batched=True), settings)([photo[:120, :160]])
    assert len(expected.annotations) > 3
    _same(found, expected)


@pytest.mark.parametrize("name", ["SLOTS", "CHANGES"])
def test_without_room_is_done_again(
    tiny_sam: Any, photo: Any, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Too many survivors or changes are told, and the image has all its masks all the same."""
    monkeypatch.setattr(engine_module, name, 4)
    (expected,) = AutomaticMasks(_segmenter(tiny_sam), GRID)([photo])
    with caplog.at_level("WARNING"):
        (found,) = AutomaticMasks(_segmenter(tiny_sam, batched=True), GRID)([photo])
    assert "4 have room" in caplog.text
    _same(found, expected)


def test_lost_digits_are_done_again(
    tiny_sam: Any, photo: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the low-rank form cancels."""
    monkeypatch.setattr("maskmill.pipeline.gpu.transfer.MAX_CANCELLATION", 0.5)
    with caplog.at_level("WARNING"):
        (found,) = AutomaticMasks(_segmenter(tiny_sam, batched=True), GRID)([photo])
    assert "lost digits" in caplog.text
    _same(found, AutomaticMasks(_segmenter(tiny_sam), GRID)([photo])[0])


def test_nothing_waits_and_few_launches(tiny_sam: Any, photo: Any) -> None:
    """From bytes to the copy: no operation that waits; 150 launches an image outside the regions at most."""
    photo = photo[:64, :80]
    segmenter = _segmenter(tiny_sam, batched=True)
    ops = CountedOps()
    stage = device_masks(segmenter, GRID, ops)
    (embedding,) = segmenter.embed([photo])
    job = engine_module._Job(0, 0, Crop((0, 0, photo.shape[1], photo.shape[0]), 0))
    inside = Launches()
    whole = stage.grid.work

    def region(*inputs: Any) -> Any:
        """Counted by itself."""
        with inside:
            return whole(*inputs)

    stage.grid.work = region
    with torch.inference_mode(), Launches() as both:
        stage.enqueue(job, embedding, photo.shape[:2])
    calls = sum(count for name, count in ops.calls.items() if name != "head")
    outside = both.counted - inside.counted
    assert sum(inside.counted.values()) > 100, "the decoder is in the region"
    assert sum(outside.values()) + calls <= 150, outside
    assert ops.calls["measure"] == 1 and ops.calls["head"] == 1


def test_what_waits_is_seen() -> None:
    """The guard's own test."""
    with Launches():
        for wait in (lambda x: x.item(), lambda x: bool(x > 0), lambda x: x.view(1).nonzero()):
            with pytest.raises(AssertionError, match="waits"):
                wait(torch.tensor(1.0))
        with pytest.raises(AssertionError, match="waits"):
            torch.ones(3)[torch.ones(3) > 0]


def test_regions_have_no_shape_that_depends_on_data(tiny_sam: Any) -> None:
    """Both regions run where tensors have shapes and no values."""
    segmenter = _segmenter(tiny_sam, batched=True)
    parts = segmenter.grid_parts()
    assert parts is not None
    grid = GridDecoder(parts.weights, TorchOps(), predicted_iou=0.7, best=True)
    encoder = DeviceEncoder(copy.deepcopy(tiny_sam.image_encoder), TorchOps())
    batch = BatchEncoder(encoder, tiny_sam.pixel_mean, tiny_sam.pixel_std, 128, torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        features = batch._encode(torch.zeros(2, 128, 128, 3, dtype=torch.uint8), torch.zeros(2, 2).long())
        assert features.shape == (2, 64, 8, 8)
        found = grid(features[0], (), torch.zeros(36, 2, dtype=torch.float64))
    assert found.logits_PMhw.shape == (36, 3, 32, 32)


def test_the_host_makes_few_calls(make_tiny_sam: Any) -> None:
    """From the resized pictures to the annotations of 100 survivors each: 10 ms an image are 5,000 calls of
    2 us. `benchmarks/host_time.py` has the seconds."""
    taken_out = ArithmeticTakenOut(make_tiny_sam)
    assert [len(one.annotations) for one in taken_out()] == [100] * len(taken_out.images)
    with Calls() as calls:
        taken_out()
    assert 1_000 < calls.made / len(taken_out.images) <= 5_000


def test_calls_of_every_thread_are_counted() -> None:
    """The guard's own test."""
    with Calls() as calls:
        _called()
        thread = threading.Thread(target=lambda: [_called() for _ in range(1_000)])
        thread.start()
        thread.join()
    assert 1_000 < calls.made < 1_100


def _called() -> None:
    pass


def test_fits_float32_limits() -> None:
    """A limit between two float32 numbers."""
    from maskmill.pipeline.gpu.ops import float32_below

    for limit in (0.7, 0.5, 0.1, 1.0, 0.0):
        below = np.float32(float32_below(limit))
        assert float(below) <= limit < float(np.nextafter(below, np.float32(2)))
