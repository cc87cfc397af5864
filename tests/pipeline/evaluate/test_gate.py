"""The gate: passes what is better, refuses what is worse, unsure, or better only on average."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.evaluate.gate import decide
from maskmill.pipeline.evaluate.suite import MaskRow
from maskmill.pipeline.settings.evaluate import EvaluateSettings, GateSettings

SETTINGS = GateSettings(bootstrap=400, margin=0.01)
FIGURE = SETTINGS.figure


def rows(ious: np.ndarray[tuple[int, ...], np.dtype[np.float64]], area: int = 400) -> list[MaskRow]:
    return [MaskRow(f"p{i // 4}", i % 4, area, 1, {FIGURE: float(iou)}) for i, iou in enumerate(ious)]


def test_a_clear_gain_passes_with_its_interval() -> None:
    before = np.random.default_rng(0).uniform(0.3, 0.7, 80)
    got = decide({"a": rows(before)}, {"a": rows(before + 0.05)}, SETTINGS)
    assert got.passed and got.overall.gain == pytest.approx(0.05)
    assert got.overall.low == pytest.approx(0.05) and got.overall.pictures == 20
    assert got.facts()["passed"] is True


@pytest.mark.parametrize(
    ("change", "why"), [(-0.05, "below the margin"), (0.005, "below the margin"), (0.0, "below the margin")]
)
def test_harm_and_small_gains_are_refused(change: float, why: str) -> None:
    before = np.full(80, 0.5)
    got = decide({"a": rows(before)}, {"a": rows(before + change)}, SETTINGS)
    assert not got.passed and why in got.why


def test_a_gain_that_few_pictures_carry_is_refused() -> None:
    before, after = np.full(80, 0.5), np.full(80, 0.5)
    after[:4] = 0.9
    got = decide({"a": rows(before)}, {"a": rows(after)}, SETTINGS)
    assert not got.passed and "may be no gain at all" in got.why


def test_a_slice_that_loses_stops_a_gain_on_average() -> None:
    before = rows(np.full(80, 0.5)) + rows(np.full(40, 0.5), area=20_000)
    after = rows(np.full(80, 0.6)) + rows(np.full(40, 0.45), area=20_000)
    for i, (old, new) in enumerate(zip(before[80:], after[80:], strict=True)):
        before[80 + i] = MaskRow(f"q{i // 4}", i % 4, old.area_px, 1, old.figures)
        after[80 + i] = MaskRow(f"q{i // 4}", i % 4, new.area_px, 1, new.figures)
    got = decide({"a": before}, {"a": after}, SETTINGS)
    assert not got.passed and "worse on large" in got.why and got.slices["small"].gain > 0


def test_other_masks_cannot_be_compared() -> None:
    some = rows(np.full(8, 0.5))
    with pytest.raises(ValueError, match="same masks"):
        decide({"a": some}, {"a": list(reversed(some))}, SETTINGS)
    with pytest.raises(ValueError, match="same masks"):
        decide({"a": []}, {"a": []}, SETTINGS)
    with pytest.raises(ValueError, match="was not measured"):
        decide({"a": some}, {"a": some}, GateSettings(figure="boxes_miou"))


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="margin=2"):
        GateSettings(margin=2)
    for wrong in ({"measures": "beauty"}, {"clicks": "3,1"}, {"clicks": "a"}, {"grid": 0}, {"max_images": 0}):
        with pytest.raises(ValueError, match=str(next(iter(wrong)))):
            EvaluateSettings(**wrong)  # type: ignore[arg-type]
