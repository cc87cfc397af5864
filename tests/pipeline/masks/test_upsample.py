"""Measures and runs against the reference's own functions on full-size logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils import amg
from segment_anything.utils.transforms import ResizeLongestSide
from torch.nn import functional

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.masks.upsample import MaskMeasures, boxes, measure, runs, runs_batch
from maskmill.pipeline.rle import decode

Floats = npt.NDArray[np.float32]
MODELS = [(64, 256), (32, 128), (16, 64), (24, 48)]  # logits, input: SAM's are four times smaller


@dataclass(frozen=True)
class Case:
    logits_NHW: Floats  # N = 3, as the reference's multimask output
    frame: Frame
    threshold: float
    offset: float


def upsampled(logits_NHW: Floats, frame: Frame) -> torch.Tensor:
    """Sam.postprocess_masks."""
    logits = torch.from_numpy(logits_NHW)[None]
    square = (frame.image_size, frame.image_size)
    logits = functional.interpolate(logits, square, mode="bilinear", align_corners=False)
    logits = logits[..., : frame.input_height, : frame.input_width]
    size = (frame.crop_height, frame.crop_width)
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)[0]


def logits_like(rng: np.random.Generator, kind: str, low: int) -> Floats:
    if kind == "constant":
        return np.full((3, low, low), rng.choice([-3, -1, 0, 0.5, 1, 3]), np.float32)
    detail = low if kind == "noise" else int(rng.integers(2, 12))
    coarse = torch.from_numpy(rng.standard_normal((1, 3, detail, detail)).astype(np.float32))
    smooth = functional.interpolate(coarse, (low, low), mode="bicubic")[0].numpy()
    return np.ascontiguousarray(smooth * np.float32(rng.uniform(0.5, 12)) + np.float32(rng.uniform(-3, 2)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    low, image_size = draw(st.sampled_from(MODELS))
    sides = [(160, 107), (100, 80), (1, 30), (30, 1), (1, 1), (low, low), (image_size, image_size), (33, 250)]
    height, width = draw(st.sampled_from(sides) | st.tuples(*[st.integers(8, 300)] * 2))
    left, right, above, below = draw(st.just((0, 0, 0, 0)) | st.tuples(*[st.integers(0, 4)] * 4))
    frame = Frame.of_crop(
        image_size,
        (left, above, left + width, above + height),
        height=above + height + below,
        width=left + width + right,
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "smooth", "noise", "constant"]))
    logits_NHW = logits_like(rng, kind, low)
    return Case(
        logits_NHW, frame, draw(st.sampled_from([0, 0, 0.3, -1])), draw(st.sampled_from([1, 1, 0.2, 0]))
    )


def doubtful(logits: torch.Tensor, level: float) -> torch.Tensor:
    """Pixels so near the level that rounding decides."""
    return (logits - level).abs() <= 1e-5 * max(1.0, float(logits.abs().max()))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_measures_equal_the_reference(case: Case) -> None:
    logits = upsampled(case.logits_NHW, case.frame)
    ours = measure(case.logits_NHW, case.frame, offset=case.offset, threshold=case.threshold)
    levels = [case.threshold - case.offset, case.threshold, case.threshold + case.offset]
    for level, counted in zip(levels, [ours.outer_px, ours.area_px, ours.inner_px], strict=True):
        theirs = (logits > level).flatten(1).sum(1).numpy()
        assert (np.abs(counted - theirs) <= doubtful(logits, level).flatten(1).sum(1).numpy()).all()
    sure = doubtful(logits, case.threshold).flatten(1).sum(1).numpy() == 0
    theirs = amg.batched_mask_to_box(logits > case.threshold).numpy()
    assert np.array_equal(ours.box_xyxy[sure], theirs[sure])


@settings(max_examples=80, deadline=None)
@given(cases())
def test_runs_equal_the_reference(case: Case) -> None:
    frame = case.frame
    logits = upsampled(case.logits_NHW, frame)
    masks = amg.uncrop_masks(logits > case.threshold, list(frame.crop_xyxy), frame.height, frame.width)
    unsure = amg.uncrop_masks(
        doubtful(logits, case.threshold), list(frame.crop_xyxy), frame.height, frame.width
    )
    rles = runs_batch(case.logits_NHW, frame, threshold=case.threshold)
    for rle, mask, allowed, uncompressed in zip(
        rles, masks, unsure, amg.mask_to_rle_pytorch(masks), strict=True
    ):
        assert not (torch.from_numpy(decode(rle)) ^ mask)[~allowed].any()
        if not allowed.any():
            assert rle.to_coco() == amg.coco_encode_rle(uncompressed)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="torch rounds as our kernels do where it fuses multiply and add",
)
@pytest.mark.parametrize(("height", "width"), [(375, 562), (427, 640), (80, 100), (31, 31), (1, 200)])
def test_not_one_pixel_differs_where_torch_fuses(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    frame = Frame.of_image(256, height=height, width=width)
    for kind in ("smooth", "noise"):
        logits_NHW = logits_like(rng, kind, 64)
        masks = upsampled(logits_NHW, frame) > 0
        for rle, mask in zip(runs_batch(logits_NHW, frame), masks, strict=True):
            assert np.array_equal(decode(rle), mask.numpy())


@settings(max_examples=40, deadline=None)
@given(cases())
def test_measures_and_runs_agree(case: Case) -> None:
    ours = measure(case.logits_NHW, case.frame, threshold=case.threshold)
    for n, rle in enumerate(runs_batch(case.logits_NHW, case.frame, threshold=case.threshold)):
        mask_HW = decode(rle)
        assert ours.area_px[n] == mask_HW.sum()
        if ours.area_px[n]:
            ys, xs = np.nonzero(mask_HW)
            x0, y0, _, _ = case.frame.crop_xyxy
            corners = [xs.min() - x0, ys.min() - y0, xs.max() - x0, ys.max() - y0]
            assert ours.box_xyxy[n].tolist() == corners


@settings(deadline=None)
@given(cases())
def test_boxes_alone_are_the_measured_ones(case: Case) -> None:
    measured = measure(case.logits_NHW, case.frame, offset=case.offset, threshold=case.threshold)
    assert np.array_equal(boxes(case.logits_NHW, case.frame, threshold=case.threshold), measured.box_xyxy)


def test_stability_is_the_references_with_zero_for_nothing() -> None:
    rng = np.random.default_rng(3)
    logits_NHW = np.concatenate([logits_like(rng, "smooth", 64), np.full((3, 64, 64), -9, np.float32)])
    frame = Frame.of_image(256, height=150, width=225)
    ours = measure(logits_NHW, frame)
    logits = torch.cat([upsampled(logits_NHW[:3], frame), upsampled(logits_NHW[3:], frame)])
    theirs = amg.calculate_stability_score(logits, 0.0, 1.0)
    assert theirs[3:].isnan().all()
    assert ours.stability_score.dtype == np.float32
    assert np.array_equal(ours.stability_score, theirs.nan_to_num(0).numpy())
    assert not ours.box_xyxy[3:].any()


def test_threads_and_batches_do_not_change_the_result() -> None:
    rng = np.random.default_rng(5)
    logits_NHW = np.concatenate([logits_like(rng, "smooth", 32) for _ in range(15)])
    frame = Frame.of_image(128, height=90, width=131)
    one, three = measure(logits_NHW, frame, threads=1), measure(logits_NHW, frame, threads=3)
    for name in ("area_px", "inner_px", "outer_px", "box_xyxy"):
        assert np.array_equal(getattr(one, name), getattr(three, name))
    rles = runs_batch(logits_NHW, frame, threads=3)
    assert rles == [runs(map_HW, frame) for map_HW in logits_NHW]
    half = one[one.area_px > np.median(one.area_px)]
    assert isinstance(half, MaskMeasures)
    assert len(half) == (one.area_px > np.median(one.area_px)).sum()
    assert len(measure(logits_NHW[:0], frame)) == 0
    assert runs_batch(logits_NHW[:0], frame) == []


def test_slices_of_a_larger_array_are_read_rightly() -> None:
    rng = np.random.default_rng(6)
    logits_NHW = np.concatenate([logits_like(rng, "smooth", 32) for _ in range(2)])
    frame = Frame.of_image(128, height=90, width=131)
    assert np.array_equal(measure(logits_NHW[::2], frame).area_px, measure(logits_NHW, frame).area_px[::2])


@pytest.mark.parametrize("size", [(640, 427), (1500, 2250), (80, 100), (33, 7)])
def test_a_frame_has_the_references_input_size(size: tuple[int, int]) -> None:
    frame = Frame.of_image(1024, height=size[0], width=size[1])
    expected = ResizeLongestSide.get_preprocess_shape(*size, 1024)
    assert (frame.input_height, frame.input_width) == expected


def test_impossible_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="reaches out"):
        Frame.of_crop(64, (0, 0, 11, 10), height=10, width=10)
    with pytest.raises(ValueError, match="empty"):
        Frame.of_crop(64, (3, 0, 3, 10), height=10, width=10)
    with pytest.raises(ValueError, match="un-padded input 0 x 64"):
        Frame.of_image(64, height=1, width=1000)


def test_other_logits_are_refused() -> None:
    frame = Frame.of_image(64, height=10, width=10)
    with pytest.raises(ValueError, match="float64"):
        measure(np.zeros((1, 16, 16)), frame)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"float32\[H, W\]; these are float32\[1, 16, 16\]"):
        runs(np.zeros((1, 16, 16), np.float32), frame)
    with pytest.raises(ValueError, match="offset is -1"):
        measure(np.zeros((1, 16, 16), np.float32), frame, offset=-1)
