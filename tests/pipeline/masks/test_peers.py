"""The grid stage against the automatic generators that came with SAM 2 and SAM-HQ, on the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.utils.transforms import ResizeLongestSide

from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.decoder.forms import SAM_HQ
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.reference import adjust_family
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.families import FamilyModel, FamilySegmenter, Pixels, SamHqEncoder
from maskmill.pipeline.segmenters.family_decoder import IMAGE_POSITIONS, DecoderSizes, build, load
from maskmill.pipeline.segmenters.official_sam2 import official_model
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings
from tests.pipeline.segmenters.peers import TINY_HIERA, TINY_INPUT_PX, TINY_VIT, sam2_model, sam_hq_model


def assert_same(ours: Sequence[Annotation], theirs: list[dict[str, Any]]) -> None:
    """As many masks; each has one of the other side with IoU >= 0.9999, the same box and predicted IoU."""
    assert len(ours) == len(theirs) > 2
    others = [row["segmentation"].astype(bool) for row in theirs]
    for annotation in ours:
        mask = decode(annotation.segmentation).astype(bool)
        ious = [(mask & other).sum() / (mask | other).sum() for other in others]
        best = int(np.argmax(ious))
        assert ious[best] >= 0.9999
        assert annotation.bbox_xywh == tuple(theirs[best]["bbox"])
        assert annotation.predicted_iou == pytest.approx(theirs[best]["predicted_iou"], abs=1e-5)


@pytest.mark.parametrize("crop_layers", [0, 1])
def test_masks_are_sam2s_own_generators(photo: Any, crop_layers: int) -> None:
    theirs = sam2_model()
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    model = official_model(
        dict(theirs.state_dict()), Path("tiny.pt"), hiera=TINY_HIERA, input_px=TINY_INPUT_PX
    )
    adjust_family(model, photo, predicted_iou=0.8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its transforms are scripted
        generator = SAM2AutomaticMaskGenerator(
            theirs, points_per_side=8, crop_n_layers=crop_layers, box_nms_thresh=0.9
        )
    generator.predictor._bb_feat_sizes = [(TINY_INPUT_PX // s, TINY_INPUT_PX // s) for s in (4, 8, 16)]

    settings = MaskSettings(points_per_side=8, predicted_iou=0.8, crop_layers=crop_layers, box_nms=0.9)
    (ours,) = AutomaticMasks(FamilySegmenter(model, device="cpu"), settings)([photo])
    assert_same(ours.annotations, generator.generate(photo))


def _family_of(theirs: Any) -> FamilyModel:
    """SAM-HQ's authors' weights here."""
    sizes = DecoderSizes(
        grid=TINY_INPUT_PX // 16,
        input_px=TINY_INPUT_PX,
        channels=64,
        mlp_dim=64,
        heads=4,
        iou_width=64,
        early_channels=32,
    )
    tensors = dict(theirs.state_dict())
    tensors[IMAGE_POSITIONS] = tensors["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    modules = load(build(sizes, SAM_HQ), tensors, Path("hq.pth"))

    vit = ImageEncoderViT(TINY_INPUT_PX, out_chans=64, **TINY_VIT).eval()
    vit.load_state_dict(theirs.image_encoder.state_dict())

    def prepare(images: Sequence[Pixels], device: torch.device) -> torch.Tensor:
        resize = ResizeLongestSide(TINY_INPUT_PX)
        pixels = [torch.from_numpy(resize.apply_image(image)).permute(2, 0, 1)[None] for image in images]
        return torch.cat([theirs.preprocess(one) for one in pixels])

    return FamilyModel(SamHqEncoder(vit, torch.float32), modules, SAM_HQ, prepare, stretches=False)


def test_masks_are_sam_hqs_own_generators(photo: Any) -> None:
    """Its generator keeps the best of a prompt's outputs alone."""
    theirs = sam_hq_model(seed=1)
    from segment_anything_hq import SamAutomaticMaskGenerator

    model = _family_of(theirs)
    adjust_family(model, photo, share=0.5)
    generator = SamAutomaticMaskGenerator(theirs, points_per_side=8, box_nms_thresh=0.9)
    settings = MaskSettings(points_per_side=8, box_nms=0.9, outputs="best")
    (ours,) = AutomaticMasks(FamilySegmenter(model, device="cpu"), settings)([photo])
    assert_same(ours.annotations, generator.generate(photo))


def test_only_the_best_output_of_a_prompt_goes_on(tiny_sam: Any, photo: Any) -> None:
    segmenter = SamSegmenter(tiny_sam, device="cpu")
    grid: dict[str, Any] = {"points_per_side": 8, "predicted_iou": 0.0, "stability": 0.0, "box_nms": 1.0}
    (every,) = AutomaticMasks(segmenter, MaskSettings(**grid))([photo])
    (best,) = AutomaticMasks(segmenter, MaskSettings(**grid, outputs="best"))([photo])
    wanted: dict[Any, float] = {}
    for one in every.annotations:
        wanted[one.point_xy] = max(wanted.get(one.point_xy, 0.0), one.predicted_iou)
    found = {one.point_xy: one.predicted_iou for one in best.annotations}
    assert len(found) == len(best.annotations)
    assert all(found[point] <= wanted[point] + 1e-6 for point in found)
    assert len(best.annotations) < len(every.annotations)
