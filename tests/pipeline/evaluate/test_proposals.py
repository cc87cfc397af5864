"""Filtering and scoring of a point grid's masks: candidates made by hand, and the reference's generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator

from maskmill.pipeline.evaluate.proposals import Candidates, candidates_of, sweep
from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.student import StudentConfig, build_student

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


def by_hand() -> Candidates:
    """Two good masks of one truth (the second suppressed), a fair one of another, and a wrong one."""
    return Candidates(
        predicted_iou_C=torch.tensor([0.9, 0.8, 0.7, 0.6]),
        stability_C=torch.tensor([0.95, 0.95, 0.95, 0.7]),
        box_C4=torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 10], [20, 20, 30, 30], [40, 40, 50, 50]]),
        iou_CN=torch.tensor([[0.9, 0.0, 0.0], [0.8, 0.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.1]]),
    )


def test_figures_are_as_counted_by_hand() -> None:
    (row,) = sweep([by_hand()], [0.5], [0.6])
    assert row.masks_per_picture == 3
    assert row.precision_50 == pytest.approx(2 / 3)
    assert row.recall_50 == pytest.approx(2 / 3)
    assert row.precision_75 == pytest.approx(1 / 3)
    assert row.recall_75 == pytest.approx(1 / 3)
    assert row.f_50 == pytest.approx(2 / 3)


def test_each_threshold_drops_its_own() -> None:
    rows = {(row.predicted_iou, row.stability): row for row in sweep([by_hand()], [0.5, 0.75], [0.6, 0.9])}
    assert rows[0.5, 0.9].masks_per_picture == 2
    assert rows[0.5, 0.9].precision_50 == 1
    assert rows[0.75, 0.6].masks_per_picture == 1
    assert rows[0.75, 0.6].recall_75 == pytest.approx(1 / 3)


def test_nothing_kept_is_no_error() -> None:
    (row,) = sweep([by_hand()], [0.99], [0.6])
    assert (row.masks_per_picture, row.precision_50, row.recall_50, row.f_50) == (0, 0, 0, 0)


def test_keeps_as_many_masks_as_the_references_generator() -> None:
    torch.manual_seed(0)
    sam, scene = build_student(TINY), generate_scene(5, 64)
    asked = candidates_of(sam, scene, points_per_side=4)
    threshold = float(asked.predicted_iou_C.median())
    (row,) = sweep([asked], [threshold], [0.0])
    reference = SamAutomaticMaskGenerator(
        sam, points_per_side=4, pred_iou_thresh=threshold, stability_score_thresh=0.0, box_nms_thresh=0.7
    ).generate(scene.image)
    assert row.masks_per_picture == len(reference) > 0
    best = [
        max(
            (truth & one["segmentation"]).sum() / (truth | one["segmentation"]).sum()
            for truth in scene.masks_NHW
        )
        for one in reference
    ]
    assert row.precision_50 == pytest.approx(np.mean(np.array(best) >= 0.5))
