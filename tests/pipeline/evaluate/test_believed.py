"""Predicted against true IoU: figures known by hand, intervals by mask, and a real model's answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.evaluate.believed import (
    Answers,
    ask_points,
    belief_figures,
    calibration_error,
    correlation,
)
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import StudentConfig, build_student

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


def test_the_calibration_error_weighs_each_bins_difference() -> None:
    predicted = np.array([0.15, 0.15, 0.95, 1.2])
    true = np.array([0.25, 0.05, 0.45, 0.7])
    assert calibration_error(predicted, true) == pytest.approx(0.25)  # bins 0.0 of two, 1.0 of two, over four
    assert calibration_error(true, true) == 0


def test_a_prediction_that_never_changes_has_no_correlation() -> None:
    assert correlation(np.full(5, 0.7), np.linspace(0, 1, 5)) == 0
    assert correlation(np.linspace(0, 1, 5), np.linspace(0.2, 0.4, 5)) == pytest.approx(1)


def test_intervals_draw_masks_not_outputs() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(40)
    repeated = Answers(np.repeat(rng.random(40), 30), np.repeat(true, 30), np.repeat(np.arange(40), 30))
    figures = belief_figures(repeated, draws=200)
    assert figures.masks == 40
    assert figures.answers == 1200
    assert figures.correlation.low < figures.correlation.value < figures.correlation.high
    assert figures.correlation.high - figures.correlation.low > 0.3  # 1,200 independent ones give 0.11


def test_a_models_answers_are_held_against_the_mask_that_was_asked_for() -> None:
    torch.manual_seed(0)
    sam = build_student(TINY)
    with torch.no_grad():  # everything is foreground, and said to be good
        last = sam.mask_decoder.iou_prediction_head.layers[-1]
        last.weight.zero_(), last.bias.fill_(0.75)
    sam.mask_threshold = -1e9
    masks = np.zeros((3, 40, 60), np.bool_)
    masks[0, :20], masks[1, :, :15], masks[2] = True, True, True
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    answers = ask_points(SamSegmenter(sam), [Truth("one", image, masks)], points=4)
    assert answers.predicted_A == pytest.approx(np.full(36, 0.75))
    assert answers.true_A == pytest.approx(np.repeat([0.5, 0.25, 1.0], 12))
    assert answers.mask_A.tolist() == np.repeat([0, 1, 2], 12).tolist()


def test_nothing_to_ask_for_is_named() -> None:
    empty = Truth("none", np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8), np.bool_))
    with pytest.raises(ValueError, match="no picture with a mask"):
        ask_points(SamSegmenter(build_student(TINY)), [empty])
