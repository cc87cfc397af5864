"""Range checks: each names the field, its value and what it may be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from maskmill.pipeline.checks import (
    check_choice,
    check_fields,
    check_int,
    check_range,
    check_type,
    check_within,
    finite,
)


@dataclass(frozen=True)
class Both:
    count: Any = 3
    share: Any = 0.5


def test_ends_are_within() -> None:
    check_int("n", 1, 1, 8)
    check_int("n", 8, 1, 8)
    check_range("r", 0, 0.0, 1.0)
    check_range("r", 1.0, 0.0, 1.0)
    check_within("w", 1e-9, 0.0, 1.0)
    check_within("w", 1e300, 0.0, math.inf)
    check_choice("c", "b", ("a", "b"))
    check_type("t", True, bool)
    check_fields(Both(), {"count": (1, 3), "share": (0.5, 0.5)})


@pytest.mark.parametrize("value", [0, 9])
def test_a_count_out_of_range_says_the_range(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^n={value} is out of range: use 1 to 8$"):
        check_int("n", value, 1, 8)


@pytest.mark.parametrize("value", [True, 2.0, "2", None])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number from 1 to 8"):
        check_int("n", value, 1, 8)


@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf])
def test_a_number_out_of_range_says_the_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"is out of range: use 0 to 1$"):
        check_range("r", value, 0.0, 1.0)


@pytest.mark.parametrize("value", [False, "0.5", None])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be a number from 0 to 1"):
        check_range("r", value, 0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, True, "0.5"])
def test_an_open_range_does_not_hold_its_ends(value: object) -> None:
    with pytest.raises(ValueError, match=r"use a number between 0 and 1, without these"):
        check_within("w", value, 0.0, 1.0)


def test_a_range_without_an_upper_end_says_so() -> None:
    with pytest.raises(ValueError, match=r"clip=0.0 is out of range: use a number above 0$"):
        check_within("clip", 0.0, 0.0, math.inf)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Both(count=4), "count=4 is out of range: use 1 to 3"),
        (Both(count=1.0), "count=1.0 must be a whole number"),
        (Both(share=2), "share=2 is out of range: use 0 to 1"),
    ],
)
def test_fields_are_whole_where_their_ends_are(settings: Both, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_fields(settings, {"count": (1, 3), "share": (0.0, 1.0)})


def test_an_unknown_word_lists_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"c='z' is unknown: use one of a, b$"):
        check_choice("c", "z", ("a", "b"))
    with pytest.raises(ValueError, match=r"t=1 must be a bool$"):
        check_type("t", 1, bool)


def test_what_json_cannot_say_is_null_at_any_depth() -> None:
    value = {1: math.nan, "a": [math.inf, {"b": (np.float64("-inf"), 2.5)}], "c": "nan", "d": None}
    said = finite(value)
    assert said == {"1": None, "a": [None, {"b": [None, 2.5]}], "c": "nan", "d": None}
    assert json.loads(json.dumps(said, allow_nan=False)) == said
