"""Depth of logits: one number that finds itself again, and masks, corrections and predictions that stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.student import load_nano
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.nano.temperature import deepen, scale_logits


def test_masks_corrections_and_predictions_stay() -> None:
    plain = load_nano()
    deep = copy.deepcopy(plain)
    scale_logits(deep, 3.0)
    answers = []
    for sam in (plain, deep):
        predictor = SamPredictor(sam)
        predictor.set_image(generate_scene(3, 128).image)
        point = (np.array([[60, 60]]), np.array([1]))
        _, iou, low = predictor.predict(*point, multimask_output=True)
        _, again, second = predictor.predict(*point, mask_input=low[:1], multimask_output=False)
        answers.append((iou, low, again, second))
    for name, one, other, factor in zip("abcd", *answers, (1, 3, 1, 3), strict=True):
        assert other == pytest.approx(factor * one, abs=1e-3, rel=1e-3), name


def test_a_depth_that_was_lost_is_found_again() -> None:
    batches = [scene_sample(2 * number, SceneConfig(256)) for number in range(2)]
    sam = load_nano()
    deepen(sam, batches)
    shallow = copy.deepcopy(sam)
    scale_logits(shallow, 0.5)
    assert deepen(shallow, batches) == pytest.approx(2.0, rel=0.08)
    for name, value in sam.state_dict().items():
        torch.testing.assert_close(shallow.state_dict()[name], value, rtol=0.08, atol=1e-5)


def test_nothing_to_judge_by_changes_nothing() -> None:
    sam = load_nano()
    before = copy.deepcopy(sam.state_dict())
    assert deepen(sam, []) == 1.0
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
