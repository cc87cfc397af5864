"""The curve that is fitted after a training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.calibration import LEAST_ANSWERS, calibrate_on
from maskmill.pipeline.train.recipe import first_answers

SMALL = StudentConfig(
    image_size=64,
    widths=(8, 8, 16, 16),
    depths=(1, 1, 1, 1),
    embed_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_knots=9,
)
SETTINGS = TrainSettings(masks=8, box_share=0.0)


def student(config: StudentConfig = SMALL) -> Sam:
    torch.manual_seed(0)
    return build_student(config)


def images(count: int, *, right: float | None = None) -> list[TrainImage]:
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        masks = np.zeros((8, 64, 64), np.bool_)
        for mask in masks:
            top, left = rng.integers(0, 40, 2)
            mask[top : top + 20, left : left + 20] = True
        pixels = rng.normal(0, 1, (3, 64, 64)).astype(np.float32)
        told = None if right is None else np.full(8, right, np.float32)
        found.append(TrainImage(number, pixels, 64, 64, masks, np.ones(8, np.float32), False, right_N=told))
    return found


def curve_of(sam: Sam) -> list[torch.Tensor]:
    return [one.clone() for one in sam.mask_decoder.iou_prediction_head.curve()]


def test_what_is_said_comes_nearer_to_what_answers_are_worth_and_their_order_stays() -> None:
    sam, pictures = student(), images(12)
    before = [first_answers(sam, one, SETTINGS).said_PM for one in pictures]
    fit = calibrate_on(sam, pictures, SETTINGS)
    assert fit is not None and fit.answers == 12 * 8 * 3
    assert fit.error_after < 0.5 * fit.error_before
    after = [first_answers(sam, one, SETTINGS) for one in pictures]
    said, worth = (np.concatenate([getattr(one, name) for one in after]) for name in ("said_PM", "worth_PM"))
    assert said.mean() == pytest.approx(worth.mean(), abs=0.02)
    order = np.argsort(np.concatenate(before).flatten(), kind="stable")
    assert (np.diff(said.flatten()[order]) >= -1e-6).all()


def test_masks_that_are_half_right_make_half_of_it() -> None:
    means = []
    for right in (None, 0.5):
        sam, pictures = student(), images(12, right=right)
        assert calibrate_on(sam, pictures, SETTINGS) is not None
        means.append(np.mean([first_answers(sam, one, SETTINGS).said_PM.mean() for one in pictures]))
    assert means[1] == pytest.approx(means[0] / 2, abs=0.02)


def test_too_few_answers_leave_the_curve_as_it_was() -> None:
    sam = student()
    before = curve_of(sam)
    assert calibrate_on(sam, images(LEAST_ANSWERS // 24), SETTINGS) is None
    assert calibrate_on(sam, [], SETTINGS) is None
    assert all(torch.equal(a, b) for a, b in zip(before, curve_of(sam), strict=True))


def test_a_model_without_a_curve_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"no curve to fit.*maskmill tune"):
        calibrate_on(student(dataclasses.replace(SMALL, iou_knots=0)), images(2), SETTINGS)
