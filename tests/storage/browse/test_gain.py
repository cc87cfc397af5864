"""What a person's minute is worth, by the SQL of the order `most gain`."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pytest

from maskmill.storage.browse.gain import CLICK_S, GAIN, GAIN_BY_SIZE, LEAST_SHARE, LOOK_S, OPEN_S


def gain(
    *rows: tuple[float, float, float | None, float | None], law: str = GAIN, area_px: Sequence[int] = ()
) -> float:
    """Of masks with predicted IoU, stability, p_right and share_found; by area where it counts."""
    with duckdb.connect(":memory:") as connection:
        fields = ("predicted_iou", "stability_score", "p_right", "share_found", "area_px")
        connection.execute(f"create table m ({', '.join(f'{name} double' for name in fields)})")
        sized = [(*row, area) for row, area in zip(rows, area_px or [1] * len(rows), strict=True)]
        connection.executemany("insert into m values (?, ?, ?, ?, ?)", sized)
        found = connection.execute(f"select {law} from m").fetchone()
    assert found is not None
    return float(found[0])


def test_an_unsure_mask_is_worth_a_look_and_a_sure_one_is_not_looked_at() -> None:
    assert gain((0.9, 0.9, 0.5, 1.0)) == pytest.approx(60 * 0.5 / (OPEN_S + LOOK_S))
    assert gain((0.9, 0.9, 0.98, 1.0)) == pytest.approx(60 * 0.02 / OPEN_S)
    assert gain((0.9, 0.9, 0.5, 1.0)) > gain((0.9, 0.9, 0.8, 1.0)) > gain((0.9, 0.9, 0.98, 1.0))


def test_what_is_missing_is_worth_its_clicks() -> None:
    """Two right masks and half of the objects found: two are missing."""
    rows = [(0.9, 0.9, 1.0, 0.5)] * 2
    assert gain(*rows) == pytest.approx(60 * 2 / (OPEN_S + 2 * CLICK_S))
    nothing_known = gain((0.9, 0.9, 1.0, 0.0))
    missing = (1 - LEAST_SHARE) / LEAST_SHARE
    assert nothing_known == pytest.approx(60 * missing / (OPEN_S + CLICK_S * missing))


def test_without_a_verifier_the_models_own_scores_stand_in() -> None:
    assert gain((0.8, 0.5, None, None)) == pytest.approx(60 * 0.4 / (OPEN_S + LOOK_S))
    assert gain((1.2, 1.0, None, None)) == 0, "more than sure, and nothing is known to be missing"


def test_by_size_a_mask_counts_its_areas_root_and_costs_the_same_seconds() -> None:
    unsure, sure = (0.9, 0.9, 0.5, 0.5), (0.9, 0.9, 1.0, 0.5)
    found = gain(unsure, sure, law=GAIN_BY_SIZE, area_px=(100, 2500))
    missing, weighed = 0.5 + 1, 0.5 * 10 + 50
    assert found == pytest.approx(60 * (0.5 * 10 + weighed) / (OPEN_S + LOOK_S + CLICK_S * missing))
    assert gain(unsure, sure, law=GAIN_BY_SIZE) == pytest.approx(gain(unsure, sure)), "all of one pixel"
