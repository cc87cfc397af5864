"""The grid stage against the automatic generators that came with SAM 2 and SAM-HQ, on the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.annotation import Annotation
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.official_sam2 import load_official
from maskmill.pipeline.settings import MaskSettings
from tests.pipeline.segmenters.peers import TINY_HIERA, TINY_INPUT_PX, sam2_model


def assert_same(ours: Sequence[Annotation], theirs: list[dict[str, Any]]) -> None:
    """As many masks; each has one of the other side with IoU >= 0.9999, the same box and predicted IoU."""
    assert len(ours) == len(theirs) > 5
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
    model = sam2_model(seed=3)
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    # A random head's predicted IoU lies anywhere in (0, 1): let about half of it pass
    model.sam_mask_decoder.iou_prediction_head.layers[-1].weight.data *= 0.2
    settings = MaskSettings(points_per_side=8, predicted_iou=0.5, stability=0.5, crop_layers=crop_layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        generator = SAM2AutomaticMaskGenerator(
            model,
            points_per_side=8,
            pred_iou_thresh=0.5,
            stability_score_thresh=0.5,
            crop_n_layers=crop_layers,
        )
        generator.predictor._bb_feat_sizes = [(TINY_INPUT_PX // s, TINY_INPUT_PX // s) for s in (4, 8, 16)]
        theirs = generator.generate(photo)

    ours = load_official(
        dict(model.state_dict()),
        Path("tiny.pt"),
        device="cpu",
        dtype="float32",
        hiera=TINY_HIERA,
        input_px=TINY_INPUT_PX,
    )
    (annotated,) = AutomaticMasks(ours, settings)([photo])
    assert_same(annotated.annotations, theirs)


def test_only_the_best_output_of_a_prompt_goes_on(stage: Any, photo: Any) -> None:
    grid = {"points_per_side": 8, "predicted_iou": 0.0, "stability": 0.0, "box_nms": 1.0}
    (every,) = stage(MaskSettings(**grid))([photo])
    (best,) = stage(MaskSettings(**grid, outputs="best"))([photo])
    wanted: dict[tuple[float, float], float] = {}
    for one in every.annotations:
        wanted[one.point_xy] = max(wanted.get(one.point_xy, 0.0), one.predicted_iou)
    found = {one.point_xy: one.predicted_iou for one in best.annotations}
    assert len(found) == len(best.annotations)
    assert all(found[point] <= wanted[point] + 1e-6 for point in found)
    assert len(best.annotations) < len(every.annotations)
