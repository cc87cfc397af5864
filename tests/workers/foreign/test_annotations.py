"""The account of what isn't taken: every annotation counted once, the first few named; and scores."""

from __future__ import annotations

from typing import Any

import pytest

from maskmill.workers.foreign.annotations import FIRST_NAMED, BadAnnotation, LeftOut, Tally, finite, score_of


def test_all_are_counted_and_the_first_few_named() -> None:
    tally = Tally()
    for number in range(FIRST_NAMED + 3):
        tally.add("bad_box", f"annotation {number}")
    tally.add("crowd", "annotation 99")
    found = tally.left_out()
    assert dict(found.counts) == {"bad_box": FIRST_NAMED + 3, "crowd": 1}
    assert found.first["bad_box"] == tuple(f"annotation {number}" for number in range(FIRST_NAMED))
    assert found.num == tally.num == FIRST_NAMED + 4
    assert list(found.counts) == sorted(found.counts), "the same account whatever came first"


def test_an_account_goes_on_from_another_and_leaves_that_as_it_was() -> None:
    begun = LeftOut({"crowd": 2}, {"crowd": ("a", "b")})
    tally = Tally(begun)
    tally.add_many("crowd", 10, ("c", "d", "e", "f", "g"))
    assert tally.left_out() == LeftOut({"crowd": 12}, {"crowd": ("a", "b", "c", "d", "e")})
    assert begun == LeftOut({"crowd": 2}, {"crowd": ("a", "b")})
    tally.add_many("bad_box", 0, ())
    assert "bad_box" not in tally.left_out().counts, "a reason that nothing was left out for is none"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0), (0.5, 0.5), ("0.25", 0.25), ("1e3", 1000.0), (True, None), (None, None), ("high", None),
        (float("nan"), None), (float("inf"), None), ("nan", None), (10**400, None), ([1], None),
    ],
)  # fmt: skip
def test_a_number_is_what_json_may_hold(value: object, number: float | None) -> None:
    assert finite(value) == number


def test_a_score_is_the_first_that_is_said() -> None:
    both: dict[str, Any] = {"predicted_iou": 0.9, "score": 0.2}
    assert score_of(both, "predicted_iou", "score") == 0.9
    assert score_of({"predicted_iou": None, "score": 0}, "predicted_iou", "score") == 0.0
    assert score_of({}, "score") == 1.0
    with pytest.raises(BadAnnotation, match=r"bad_score: its score is .*, which is no number"):
        score_of({"score": "high"}, "score")
