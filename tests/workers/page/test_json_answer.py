"""Answers in JSON: dataclasses are objects, what JSON cannot say is null."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from maskmill.workers.page.json_answer import json_answer


@dataclass(frozen=True)
class Row:
    """A row with another inside."""

    name: str
    inner: Any = None


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_null_however_deep(odd: float) -> None:
    answer = json_answer({"rows": (Row("Å", Row("b", [1, odd])), {"x": odd})})
    assert json.loads(answer.body) == {
        "rows": [{"name": "Å", "inner": {"name": "b", "inner": [1, None]}}, {"x": None}]
    }
    assert answer.headers["cache-control"] == "no-store" and answer.media_type == "application/json"


def test_what_has_no_json_is_a_bug() -> None:
    with pytest.raises(TypeError, match="set has no JSON"):
        json_answer({"a": {1}})
