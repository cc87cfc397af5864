"""Fitting the head: it alone changes, its error falls, and it is kept where nothing is better."""

from __future__ import annotations

import copy

import pytest
import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.iou_head import PROMPTS, fit_iou_head
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample

TINY = StudentConfig(
    image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2, iou_knots=5
)
BATCHES = [scene_sample(number, SceneConfig(64)) for number in range(10)]


def test_only_the_head_changes_and_its_error_falls() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    with torch.no_grad():
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += 0.5  # far too hopeful
    before = copy.deepcopy(sam.state_dict())
    report = fit_iou_head(sam, BATCHES, steps=150)
    changed = {name for name, value in sam.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("mask_decoder.iou_prediction_head.layers.") for name in changed)
    assert report.prompts == 10 * PROMPTS.count
    assert report.error_after < 0.5 * report.error_before


def test_a_head_that_cannot_be_bettered_stays() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    before = copy.deepcopy(sam.state_dict())
    report = fit_iou_head(sam, BATCHES[:5], steps=25, lr=0.0)
    assert report.error_after == report.error_before
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())


def test_too_few_batches_are_named() -> None:
    with pytest.raises(ValueError, match="3 batches"):
        fit_iou_head(build_student(TINY), BATCHES[:3])
