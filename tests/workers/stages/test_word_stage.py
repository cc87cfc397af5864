"""The base of the word stages: its model is loaded once, when first needed; a record gives its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from maskmill.workers.stages.base import Picture, StageResult
from maskmill.workers.stages.word_stage import WordStage


class Shout(WordStage[str]):
    column = "shout"

    def from_record(self, record: Any) -> str:
        return f"{record['word']}{self.model}"

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        return [StageResult(encode=lambda: pytest.fail("not asked for"), output=self.model) for _ in pictures]


def test_the_model_is_loaded_once_and_not_before_it_is_needed() -> None:
    loads: list[int] = []
    stage = Shout(lambda: loads.append(1) or "!", fingerprint="f" * 16, models={"shouter": "loud"})  # type: ignore[func-returns-value]
    assert loads == [] and stage.fingerprint == "f" * 16 and stage.models == {"shouter": "loud"}
    stage.prepare()
    stage.prepare()
    assert stage.run([]) == [] and stage.model == "!" and loads == [1]


def test_a_stored_record_gives_its_output_back() -> None:
    stage = Shout(lambda: "!", fingerprint="f" * 16, models={})
    assert stage.decode({"json": b'{"word": "hey"}', "other": b"\xff"}) == "hey!"
    with pytest.raises(ValueError, match="Expecting"):
        stage.decode({"json": b"no json"})
    with pytest.raises(KeyError):
        stage.decode({})
