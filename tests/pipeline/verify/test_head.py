"""A head learns what tells right masks from wrong ones, is calibrated, and is the same after a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskmill.pipeline.evaluate.believed import calibration_error
from maskmill.pipeline.verify.exhaustivity import SEEN, fit_share
from maskmill.pipeline.verify.features import FEATURES, VOTES
from maskmill.pipeline.verify.fit import Examples, fit_head, fitted_curve
from maskmill.pipeline.verify.head import HAS_VOTES
from maskmill.pipeline.verify.ranks import accepted_precision, auc, rank_correlation
from maskmill.pipeline.verify.verifier import Verifier, load_verifier, save_verifier


def examples(count: int, seed: int) -> Examples:
    """IoU follows one feature that predicted IoU knows nothing of."""
    rng = np.random.default_rng(seed)
    features_NF = rng.normal(size=(count, len(FEATURES))).astype(np.float32)
    score = features_NF[:, FEATURES.index("box_fill")]
    iou_N = np.clip(0.6 + 0.25 * score + 0.05 * rng.normal(size=count), 0, 1).astype(np.float32)
    return Examples(features_NF, iou_N, np.arange(count) // 10, np.ones(count, np.float32))


def test_it_learns_is_calibrated_and_survives_a_file(tmp_path: Path) -> None:
    fitted = fit_head(examples(600, 0), "a" * 64)
    fresh = examples(400, 1)
    said = fitted.head(fresh.features_NF)
    is_right = fresh.iou_N >= 0.75
    assert auc(said.right_N, is_right) > 0.9
    assert calibration_error(said.expected_iou_N, fresh.iou_N) < 0.06
    assert ((said.right_N >= 0) & (said.right_N <= 1)).all()

    share = fit_share([np.full(len(SEEN), value, np.float32) for value in (0, 1)], [0.2, 0.9])
    save_verifier(Verifier(fitted.head, share), tmp_path / "v.safetensors", {"scenes": 1})
    read = load_verifier(tmp_path / "v.safetensors", "a" * 64)
    assert read.is_calibrated
    assert not load_verifier(tmp_path / "v.safetensors", "b" * 64).is_calibrated
    np.testing.assert_array_equal(read.head(fresh.features_NF).expected_iou_N, said.expected_iou_N)


def test_masks_without_votes_have_curves_of_their_own(tmp_path: Path) -> None:
    """What a GPU's engine makes has none: where votes say much, the others' curves would be far off."""
    rng = np.random.default_rng(0)
    features_NF = rng.normal(size=(800, len(FEATURES))).astype(np.float32)
    features_NF[:, HAS_VOTES] = 1
    features_NF[:, FEATURES.index("votes_iou")] = rng.gamma(2.0, 0.5, 800)
    iou_N = np.clip(1 - 0.45 * features_NF[:, FEATURES.index("votes_iou")], 0, 1).astype(np.float32)
    fitted = fit_head(Examples(features_NF, iou_N, np.arange(800) // 10, np.ones(800, np.float32)), "a" * 64)

    alone_NF = features_NF.copy()
    alone_NF[:, [FEATURES.index(name) for name in VOTES]] = 0
    said = fitted.head(alone_NF)
    error = calibration_error(said.expected_iou_N, iou_N)
    assert error < 0.05
    assert calibration_error(said.right_N, (iou_N >= 0.75).astype(np.float32)) < 0.05
    old = replace(fitted.head, right_alone=None, iou_alone=None)
    assert calibration_error(old(alone_NF).expected_iou_N, iou_N) > 1.5 * error

    # A file keeps them; one of before there were any is a head without
    share = fit_share([np.full(len(SEEN), value, np.float32) for value in (0, 1)], [0.2, 0.9])
    for head in (fitted.head, old):
        save_verifier(Verifier(head, share), tmp_path / "v.safetensors", {})
        read = load_verifier(tmp_path / "v.safetensors").head
        np.testing.assert_array_equal(read(alone_NF).right_N, head(alone_NF).right_N)
        assert (read.right_alone is None) == (head is old)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no verifier at"):
        load_verifier(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_verifier(tmp_path / "cut.safetensors")


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="a verifier needs"):
        fit_head(examples(30, 0), "a")
    some = examples(200, 0)
    alike = Examples(some.features_NF, np.ones(200, np.float32), some.picture_N, some.weight_N)
    with pytest.raises(ValueError, match="every mask given is right"):
        fit_head(alike, "a")


def test_a_curve_rises_and_means_what_is_true() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(2000).astype(np.float32)
    curve = fitted_curve(said, (rng.random(2000) < said**2).astype(np.float32), np.ones(2000, np.float32))
    assert (np.diff(curve.true_K) >= 0).all()
    assert float(curve(np.array([0.5], np.float32))[0]) == pytest.approx(0.25, abs=0.08)


def test_the_curve_is_the_isotonic_regression_at_even_knots() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(0.2, 1.1, 4000)
    true = np.clip((said - 0.2) ** 2 + rng.normal(0, 0.05, 4000), 0, 1)
    curve = fitted_curve(said, true, knots=17)
    said_K, true_K = curve.said_K, curve.true_K
    assert (np.diff(said_K) > 0).all()
    assert (np.diff(true_K) >= 0).all()
    wanted = np.clip((said_K - 0.2) ** 2, 0, 1)
    assert np.abs(true_K - wanted).max() < 0.04


def test_a_head_that_says_one_thing_only_gets_its_mean() -> None:
    curve = fitted_curve(np.full(50, 0.6), np.linspace(0, 1, 50), knots=5)
    said_K, true_K = curve.said_K, curve.true_K
    assert (np.diff(said_K) > 0).all()
    assert true_K == pytest.approx(np.full(5, 0.5))


def test_an_answers_weight_is_as_so_many_answers() -> None:
    rng = np.random.default_rng(1)
    said, true = rng.random((2, 400))
    times = rng.integers(1, 4, 400)
    weighed = fitted_curve(said, true, times.astype(np.float32), knots=9)
    repeated = fitted_curve(np.repeat(said, times), np.repeat(true, times), knots=9)
    at = np.linspace(0.05, 0.95, 40).astype(np.float32)
    assert np.abs(weighed(at) - repeated(at)).max() < 0.03


def test_ranks() -> None:
    score, right = np.array([0.9, 0.8, 0.3, 0.1], np.float32), np.array([True, False, True, False])
    assert auc(score, right) == 0.75
    assert accepted_precision(score, right, 0.5) == 0.5
    assert rank_correlation(score, -score) == pytest.approx(-1)
    assert np.isnan(auc(score, np.ones(4, bool)))


def test_the_shipped_one_loads() -> None:
    assert load_verifier(None).head.networks.w1_EFU.shape[1] == len(FEATURES)
