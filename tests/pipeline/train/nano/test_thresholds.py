"""Thresholds: the sweep agrees with the stage itself, and the choice keeps enough masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskmill.pipeline.evaluate.automatic import AutomaticFigures, automatic_figures
from maskmill.pipeline.evaluate.truth import Truth
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.segmenters.student import load_nano
from maskmill.pipeline.settings import NANO
from maskmill.pipeline.train.nano.thresholds import Row, choose, masks_of, sweep


def _row(iou: float, masks: float, fewest: int, right: float) -> Row:
    return Row(iou, 0.6, AutomaticFigures(10, masks, fewest, 100, right, right, 0.5))


def test_the_most_right_row_with_enough_masks_is_chosen() -> None:
    rows = [_row(0.5, 40, 5, 0.6), _row(0.6, 22, 2, 0.75), _row(0.65, 21, 0, 0.8), _row(0.7, 9, 1, 0.9)]
    assert choose(rows).predicted_iou == 0.6
    with pytest.raises(ValueError, match=r"no thresholds leave 50\.0"):
        choose(rows, 50.0)


def test_a_swept_row_is_what_the_stage_gives() -> None:
    scene = generate_scene(5, 128)
    picture = Truth("one", scene.image, scene.masks_NHW)
    settings = replace(NANO, points_per_side=6)
    segmenter = SamSegmenter(load_nano(), device="cpu")
    rows = sweep(segmenter, [picture], settings)
    row = next(row for row in rows if (row.predicted_iou, row.stability) == (0.5, 0.6))
    stage = AutomaticMasks(segmenter, replace(settings, predicted_iou=0.5, stability=0.6))
    masks = masks_of(stage([scene.image])[0])
    assert row.figures == automatic_figures([masks], [picture])
    assert row.figures.masks_per_picture > 2


def test_no_annotations_are_no_masks() -> None:
    stage = AutomaticMasks(
        SamSegmenter(load_nano(), device="cpu"), replace(NANO, points_per_side=1, predicted_iou=1.0)
    )
    assert masks_of(stage([np.zeros((20, 30, 3), np.uint8)])[0]).shape == (0, 20, 30)
