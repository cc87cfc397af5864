"""Calibration changes the curve alone, makes predictions true on average, and keeps their order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.calibrate import LAST_SEED, calibrate, far_scenes

TINY = StudentConfig(
    image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2, iou_knots=9
)


def _pictures() -> list[Truth]:
    """Discs of growing size."""
    rows, cols = np.mgrid[:64, :64]
    made = []
    for number in range(6):
        masks = np.stack([(rows - y) ** 2 + (cols - 32) ** 2 < (4 + 2 * number) ** 2 for y in (16, 48)])
        image = np.where(masks.any(0)[..., None], 220, 40).astype(np.uint8).repeat(3, 2)
        made.append(Truth(str(number), image, masks))
    return made


def test_only_the_curve_changes_and_predictions_become_true_on_average() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 0.7  # far too hopeful
    before = copy.deepcopy(sam.state_dict())
    report = calibrate(sam, _pictures(), points=3)
    changed = {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "mask_decoder.iou_prediction_head.said_K", "mask_decoder.iou_prediction_head.true_K"
    }  # fmt: skip
    assert report.before.calibration_error.value > 0.3
    assert report.after.calibration_error.value < 0.1
    assert report.after.answers == 6 * 2 * 3 * 3


def test_scenes_for_it_are_none_that_measure() -> None:
    scenes = far_scenes(2, 64)
    assert all(len(scene.masks_NHW) for scene in scenes)
    assert LAST_SEED < HELD_BACK_SEED


def test_a_student_without_a_curve_is_named() -> None:
    plain = build_student(StudentConfig(image_size=64, widths=(8, 8, 8, 32), embed_dim=32, decoder_heads=2))
    with pytest.raises(ValueError, match="no calibration curve"):
        calibrate(plain, _pictures())
