"""The stage against the public generator: the same masks, and what it does at the edges."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numba.core.dispatcher import Dispatcher
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment
from segment_anything import SamAutomaticMaskGenerator

from maskmill.pipeline import rle
from maskmill.pipeline.annotation import AnnotatedImage, Annotation, from_sa1b, to_sa1b
from maskmill.pipeline.masks import automask, regions
from maskmill.pipeline.masks import upsample_loops as upsample_kernels
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.reference import ReferenceGenerator, adjust_heads
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings import MaskSettings

GRID = MaskSettings(points_per_side=8)
CROPS = MaskSettings(points_per_side=8, crop_layers=1, crop_points_downscale=2)
CLEAN = MaskSettings(points_per_side=8, min_area_px=60)
PAPER = MaskSettings(
    points_per_side=8,
    crop_layers=2,
    crop_points_downscale=2,
    min_area_px=100,
    max_coverage=0.2,
    drop_small=True,
)


@pytest.fixture(scope="module")
def stage(tiny_sam: Any) -> Any:
    segmenter = SamSegmenter(tiny_sam, device="cpu")
    return lambda settings: AutomaticMasks(segmenter, settings)


def _ious(ours: Sequence[Annotation], theirs: Sequence[Annotation]) -> Any:
    first, second = ([a.segmentation.to_coco() for a in side] for side in (ours, theirs))
    return coco.iou(first, second, [0] * len(second)) if first and second else np.zeros((0, 0))


def assert_same(ours: AnnotatedImage, theirs: AnnotatedImage) -> None:
    """Same count and order, masks, boxes and scores."""
    assert (ours.width, ours.height) == (theirs.width, theirs.height)
    assert len(ours.annotations) == len(theirs.annotations)
    assert np.diag(_ious(ours.annotations, theirs.annotations)) == pytest.approx(1.0, abs=1e-3)
    for mine, other in zip(ours.annotations, theirs.annotations, strict=True):
        assert mine.bbox_xywh == other.bbox_xywh
        assert mine.crop_box_xywh == other.crop_box_xywh
        assert mine.point_xy == other.point_xy
        assert mine.output_token == other.output_token
        assert mine.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-4)
        assert mine.stability_score == pytest.approx(other.stability_score, abs=1e-3)
        assert mine.area_px == pytest.approx(other.area_px, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        pytest.param(GRID, (256, 256), id="grid"),
        pytest.param(CROPS, (170, 250), id="crops"),
        pytest.param(CLEAN, (170, 250), id="clean"),
        pytest.param(PAPER, (256, 256), id="paper"),
        pytest.param(PAPER, (90, 61), id="paper-narrow"),
    ],
)
def test_masks_are_the_references(
    stage: Any, tiny_sam: Any, photo: Any, settings: MaskSettings, size: tuple[int, int]
) -> None:
    image = np.ascontiguousarray(photo[: size[0], : size[1]])
    (ours,) = stage(settings)([image])
    theirs = ReferenceGenerator(tiny_sam, settings).annotate(image)
    assert len(theirs.annotations) > 3
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_masks_of_other_photographs(stage: Any, tiny_sam: Any, name: str) -> None:
    image = np.ascontiguousarray(getattr(skimage.data, name)()[::3, ::3])
    (ours,) = stage(GRID)([image])
    assert_same(ours, ReferenceGenerator(tiny_sam, GRID).annotate(image))


def test_a_student_is_a_sam_like_any_other(photo: Any) -> None:
    torch.manual_seed(0)
    sam = build_student(
        StudentConfig(image_size=64, widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), embed_dim=32)
    )
    adjust_heads(sam, photo)
    (ours,) = AutomaticMasks(SamSegmenter(sam, device="cpu"), CROPS)([photo])
    theirs = ReferenceGenerator(sam, CROPS).annotate(photo)
    assert len(theirs.annotations) > 3
    assert_same(ours, theirs)


def test_the_restated_reference_is_the_public_generator(tiny_sam: Any, photo: Any) -> None:
    public = SamAutomaticMaskGenerator(
        tiny_sam,
        points_per_side=8,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=60,
        output_mode="coco_rle",
    ).generate(photo)
    settings = MaskSettings(points_per_side=8, crop_layers=1, crop_points_downscale=2, min_area_px=60)
    restated = ReferenceGenerator(tiny_sam, settings).annotate(photo)
    assert [row["segmentation"] for row in public] == [
        row.segmentation.to_coco() for row in restated.annotations
    ]
    assert [tuple(row["bbox"]) for row in public] == [row.bbox_xywh for row in restated.annotations]
    assert [row["predicted_iou"] for row in public] == [row.predicted_iou for row in restated.annotations]


def test_the_papers_rules_drop_masks(stage: Any, photo: Any) -> None:
    (plain,) = stage(CLEAN)([photo])
    covering = MaskSettings(points_per_side=8, min_area_px=60, max_coverage=0.1)
    (ours,) = stage(covering)([photo])
    assert max(a.area_px for a in plain.annotations) >= 0.1 * photo[..., 0].size
    assert max(a.area_px for a in ours.annotations) < 0.1 * photo[..., 0].size
    small = MaskSettings(points_per_side=8, min_area_px=2000)
    (kept,) = stage(small)([photo])
    dropping = MaskSettings(points_per_side=8, min_area_px=2000, drop_small=True)
    (dropped,) = stage(dropping)([photo])
    assert min(a.area_px for a in kept.annotations) < 2000 <= min(a.area_px for a in dropped.annotations)


def test_fields_agree_with_the_mask(stage: Any, photo: Any) -> None:
    (ours,) = stage(PAPER)([photo])
    for annotation in ours.annotations:
        mask = decode(annotation.segmentation)
        rows, columns = np.nonzero(mask)
        assert annotation.area_px == len(rows)
        left, top = columns.min(), rows.min()
        assert annotation.bbox_xywh == (left, top, columns.max() - left, rows.max() - top)
        assert annotation.output_token in (0, 1, 2)


def test_a_parent_is_the_smallest_mask_around(stage: Any, photo: Any) -> None:
    (ours,) = stage(CROPS)([photo])
    decoded = [decode(a.segmentation) for a in ours.annotations]
    for annotation, mask in zip(ours.annotations, decoded, strict=True):
        around = [
            place
            for place, other in enumerate(decoded)
            if other.sum() > mask.sum() and (mask & other).sum() >= 0.95 * mask.sum()
        ]
        smallest = min((decoded[place].sum() for place in around), default=None)
        found = None if annotation.parent is None else decoded[annotation.parent].sum()
        assert found == smallest
    assert any(a.parent is not None for a in ours.annotations)


def test_images_together_are_images_alone(stage: Any, photo: Any) -> None:
    images = [photo, np.ascontiguousarray(photo[:100, :180]), np.ascontiguousarray(photo[50:, :90])]
    together = stage(CROPS)(images)
    for image, annotated in zip(images, together, strict=True):
        assert_same(stage(CROPS)([image])[0], annotated)
        assert {"embed", "decode", "mask_head", "measure", "suppress", "encode", "parents"} <= set(
            annotated.seconds_by_step
        )
    assert stage(CROPS)([]) == []


def test_the_prompt_batch_changes_nothing(stage: Any, photo: Any) -> None:
    (whole,) = stage(GRID)([photo])
    (single,) = stage(MaskSettings(points_per_side=8, points_per_batch=7))([photo])
    assert_same(whole, single)


def test_masks_beyond_the_pending_limit_are_encoded_early(
    stage: Any, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = stage(GRID)([photo])
    monkeypatch.setattr(automask, "PENDING_LIMIT_BYTES", 0)
    (bounded,) = stage(GRID)([photo])
    assert bounded == whole


def test_candidates_then_select_is_the_stage(stage: Any, photo: Any) -> None:
    for settings in (CROPS, PAPER):
        (whole,) = stage(settings)([photo])
        candidates = stage(settings).candidates(photo)
        height, width = photo.shape[:2]
        assert_same(stage(settings).select(candidates, height=height, width=width), whole)
    candidates = stage(GRID).candidates(photo)
    assert len(candidates) > 0.9 * 3 * 64
    strict = MaskSettings(points_per_side=8, predicted_iou=0.95, stability=0.99)
    chosen = stage(GRID).select(candidates, height=256, width=256, settings=strict)
    assert_same(stage(strict)([photo])[0], chosen)


def test_no_mask_is_an_answer(stage: Any, photo: Any, tiny_sam: Any) -> None:
    for layers in (0, 1):
        nothing = MaskSettings(
            points_per_side=4, stability=1.0, predicted_iou=1.0, crop_layers=layers, min_area_px=9
        )
        (ours,) = stage(nothing)([np.zeros((40, 50, 3), np.uint8)])
        assert_same(ours, ReferenceGenerator(tiny_sam, nothing).annotate(np.zeros((40, 50, 3), np.uint8)))


def test_thresholds_of_zero_keep_all_but_empty_masks(stage: Any, tiny_sam: Any, photo: Any) -> None:
    lenient = MaskSettings(points_per_side=3, predicted_iou=0.0, stability=0.0)
    (ours,) = stage(lenient)([photo])
    assert_same(ours, ReferenceGenerator(tiny_sam, lenient).annotate(photo))
    assert all(a.area_px > 0 for a in ours.annotations)


class _ShortOfMemory(SamSegmenter):
    """Runs out of memory above some prompts a batch, as an allocator would say it."""

    def __init__(self, sam: Any, most: int, error: type[RuntimeError], message: str) -> None:
        super().__init__(sam, device="cpu")
        self.most, self.error, self.message = most, error, message

    def prompt(self, embedding: Any) -> Any:
        outer, image = self, super().prompt(embedding)

        class Image:
            def predict(self, prompts: Any, *, multimask: bool = True) -> Any:
                if len(prompts) > outer.most:
                    raise outer.error(outer.message)
                return image.predict(prompts, multimask=multimask)

        return Image()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    stage: Any, tiny_sam: Any, photo: Any, caplog: pytest.LogCaptureFixture, error: Any, message: str
) -> None:
    short = AutomaticMasks(_ShortOfMemory(tiny_sam, 20, error, message), GRID)
    with caplog.at_level(logging.WARNING):
        (ours,) = short([photo])
    assert_same(ours, stage(GRID)([photo])[0])
    assert short.points_per_batch == 16
    assert [record.getMessage() for record in caplog.records] == [
        "segmenter: out of memory with 64 together; going on with 32",
        "segmenter: out of memory with 32 together; going on with 16",
    ]


def test_what_is_no_lack_of_memory_is_raised(tiny_sam: Any, photo: Any) -> None:
    with pytest.raises(RuntimeError, match="broken kernel"):
        AutomaticMasks(_ShortOfMemory(tiny_sam, 0, RuntimeError, "broken kernel"), GRID)([photo])
    with pytest.raises(torch.OutOfMemoryError, match="for one prompt"):
        AutomaticMasks(_ShortOfMemory(tiny_sam, 0, torch.OutOfMemoryError, "for one prompt"), GRID)([photo])


GOLDEN = Path(__file__).parent / "golden" / "automask.json"


def test_a_change_of_the_masks_raises_the_revision(stage: Any, photo: Any) -> None:
    """Other masks from the same weights and settings need another fingerprint.

    When masks are meant to change: raise `automask.REVISION`, run this test with MASKMILL_GOLDEN=write,
    and say in the commit why.
    """
    (ours,) = stage(PAPER)([photo])
    if os.environ.get("MASKMILL_GOLDEN") == "write":
        record = to_sa1b(ours, image_id=0, file_name="astronaut")
        GOLDEN.write_text(json.dumps({"revision": automask.REVISION, "record": record}, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    theirs = from_sa1b(golden["record"])
    assert golden["revision"] == automask.REVISION, "write the golden masks anew: see this test"
    assert_same(ours, theirs)
    assert [a.parent for a in ours.annotations] == [a.parent for a in theirs.annotations]


def test_after_the_warm_up_nothing_is_compiled(stage: Any, photo: Any) -> None:
    automask.warm_up()
    kernels = [
        value
        for module in (regions, rle, upsample_kernels)
        for value in vars(module).values()
        if isinstance(value, Dispatcher)
    ]
    before = [len(kernel.signatures) for kernel in kernels]
    assert len(kernels) > 15
    assert sum(before) >= 7
    stage(PAPER)([photo])
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_bfloat16_finds_the_same_masks(stage: Any, make_tiny_sam: Any, photo: Any) -> None:
    sam = make_tiny_sam()
    adjust_heads(sam, photo)
    (narrow,) = AutomaticMasks(SamSegmenter(sam, device="cpu", dtype="bfloat16"), GRID)([photo])
    (exact,) = stage(GRID)([photo])
    ious = _ious(narrow.annotations, exact.annotations)
    rows, columns = linear_sum_assignment(-ious)
    matched = ious[rows, columns]
    assert len(exact.annotations) > 5
    assert 0.7 < len(narrow.annotations) / len(exact.annotations) < 1.5
    assert np.median(matched) > 0.97
    assert narrow != exact
