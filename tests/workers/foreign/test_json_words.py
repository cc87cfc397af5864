"""JSON of others is written again as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maskmill.workers.foreign.json_words import dump_json, printable, shown


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_is_replaced(value: Any) -> None:
    found = json.loads(dump_json({"a": [value, 1]}), parse_constant=pytest.fail)
    assert found in ({"a": [None, 1]}, {"a": ["\ufffd", 1]})


def test_values_and_names_are_shown_short_and_harmless() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert shown(deep) == "a list of 1" and len(shown("x" * 900)) < 50
    assert printable("a\x1b[2Jé") == "a\ufffd[2Jé" and len(printable("x" * 9000)) < 310
