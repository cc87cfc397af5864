"""Calibration touches the predicted-IoU head alone and brings it nearer to the truth."""

from __future__ import annotations

import copy

import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.calibrate import calibrate_iou, calibration_samples
from maskmill.pipeline.train.nano.samples import SampleConfig

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)
SMALL = SampleConfig(size=64, prompts=12, photo_share=0.0)


def test_only_the_head_changes_and_its_error_falls() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 0.5  # far too hopeful
    before = copy.deepcopy(sam.state_dict())
    report = calibrate_iou(sam, calibration_samples(10, SMALL), steps=150)
    changed = {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("mask_decoder.iou_prediction_head.") for name in changed)
    assert report.prompts == 120
    assert report.error_after < 0.5 * report.error_before
    assert abs(report.bias_after) < 0.1 < report.bias_before


def test_too_few_samples_are_named() -> None:
    with pytest.raises(ValueError, match="fewer than five"):
        calibrate_iou(build_student(TINY), calibration_samples(3, SMALL), steps=1)
