"""What a model says of its masks, fitted to what they are worth."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.recipe import FirstAnswers, first_answers
from maskmill.pipeline.train.scores import LEAST_ANSWERS, calibrate, fit_scores

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


def image(number: int, right: float | None = None) -> TrainImage:
    rng = np.random.default_rng(number)
    masks = np.zeros((8, 64, 64), np.bool_)
    for mask in masks:
        top, left = rng.integers(0, 40, 2)
        mask[top : top + 20, left : left + 20] = True
    pixels = rng.normal(0, 1, (3, 64, 64)).astype(np.float32)
    told = None if right is None else np.full(8, right, np.float32)
    return TrainImage(number, pixels, 64, 64, masks, np.ones(8, np.float32), False, right_N=told)


def asked(count: int = 40, *, right: float = 1.0) -> list[FirstAnswers]:
    """Tokens of four pictures' worth whose first three numbers say what the three outputs are worth."""
    found = []
    for number in range(count):
        token_PC = np.random.default_rng(number).normal(0, 1, (8, 32)).astype(np.float32)
        worth_PM = right / (1 + np.exp(-token_PC[:, :3]))
        found.append(FirstAnswers(token_PC, worth_PM.astype(np.float32), np.ones(8, np.float32)))
    return found


def said(sam: Sam, given: list[FirstAnswers]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    tokens = torch.from_numpy(np.concatenate([one.token_PC for one in given]))
    with torch.no_grad():
        found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = sam.mask_decoder.iou_prediction_head(
            tokens
        ).numpy()
    return found


def test_answers_are_the_model_s_and_worth_what_their_masks_are() -> None:
    sam = student().eval()
    whole, half = (first_answers(sam, image(3, right), SETTINGS) for right in (None, 0.5))
    assert whole.token_PC.shape == (8, 32) and whole.worth_PM.shape == (8, 3)
    np.testing.assert_allclose(half.worth_PM, whole.worth_PM / 2, rtol=1e-5)
    np.testing.assert_array_equal(half.token_PC, whole.token_PC)
    assert whole.worth_PM.max() > 0 and (whole.worth_PM <= 1).all()


def test_the_head_learns_to_choose_and_nothing_else_changes() -> None:
    sam, given = student(), asked()
    begun = copy.deepcopy(sam.state_dict())
    worth = np.concatenate([one.worth_PM for one in given])

    def chosen() -> float:
        return float(worth[np.arange(len(worth)), said(sam, given)[:, 1:].argmax(1)].mean())

    by_chance, single = chosen(), said(sam, given)[:, 0]
    fit = fit_scores(sam.mask_decoder.iou_prediction_head, given, steps=300, seed=0)
    assert fit is not None and fit.answers == worth.size and fit.error_after < 0.8 * fit.error_before
    assert chosen() > by_chance + 0.5 * (worth.max(1).mean() - by_chance)
    assert np.abs(said(sam, given)[:, 0] - single).mean() < 0.05, "the single-mask output says what it said"
    changed = {name for name, value in sam.state_dict().items() if not torch.equal(value, begun[name])}
    assert all(".iou_prediction_head." in name for name in changed)


def test_a_curve_makes_true_what_is_said_and_keeps_its_order() -> None:
    sam, given = student(), asked()
    before = said(sam, given)[:, 1:].flatten()
    fit = calibrate(sam.mask_decoder.iou_prediction_head, given)
    after, worth = said(sam, given)[:, 1:].flatten(), np.concatenate([one.worth_PM for one in given])
    assert fit is not None and fit.error_after < fit.error_before
    assert after.mean() == pytest.approx(worth.mean(), abs=0.02)
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-6).all()


def test_masks_that_are_half_right_make_half_of_it() -> None:
    means = []
    for right in (1.0, 0.5):
        sam, given = student(), asked(right=right)
        assert calibrate(sam.mask_decoder.iou_prediction_head, given) is not None
        means.append(said(sam, given)[:, 1:].mean())
    assert means[1] == pytest.approx(means[0] / 2, abs=0.02)


@pytest.mark.parametrize("count", [0, LEAST_ANSWERS // 24])
def test_too_few_answers_leave_the_head_as_it_was(count: int) -> None:
    sam = student()
    head, begun = sam.mask_decoder.iou_prediction_head, copy.deepcopy(sam.state_dict())
    assert fit_scores(head, asked(count), steps=5, seed=0) is None and calibrate(head, asked(count)) is None
    assert all(torch.equal(value, begun[name]) for name, value in sam.state_dict().items())


def test_a_model_without_a_curve_is_told_so() -> None:
    flat = student(dataclasses.replace(SMALL, iou_knots=0)).mask_decoder.iou_prediction_head
    with pytest.raises(ValueError, match=r"no curve to fit.*maskmill tune"):
        calibrate(flat, asked())
