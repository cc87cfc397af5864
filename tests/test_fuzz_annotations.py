"""Some hundred mutated annotation files; `make fuzz` gives the reader fifty thousand."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import fuzz_annotations as fuzz
from maskmill.workers.foreign.annotations import ForeignSet


def test_every_input_ends_in_a_refusal_or_an_account_that_adds_up() -> None:
    counts = fuzz.feed(range(300))
    assert sum(counts[name] for name in fuzz.BASES) == 300 == counts["read"] + counts["refused"]
    assert counts["past_json"] >= 150, "at least half are JSON"
    assert counts["taken"] > 1000 and counts["refused"] > 10
    reasons = {name for name in counts if name.startswith("left out: ")}
    assert len(reasons) >= 6, reasons


@pytest.mark.parametrize("format", fuzz.BASES)
def test_what_is_bent_is_good_before(format: str, tmp_path: Path) -> None:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(fuzz.BASES[format]))
    counts = fuzz.came_of(0, path, format)
    without = 0 if format == "sa1b" else 4  # keypoints, and a box alone that the reader may take
    assert counts["annotations"] - counts["taken"] <= without and counts["taken"] >= 6


def test_inputs_are_the_same_for_the_same_number_and_differ_else() -> None:
    assert fuzz.made(7) == fuzz.made(7)
    assert len({fuzz.made(number)[1] for number in range(50)}) > 45


def test_an_account_that_does_not_add_up_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fuzz.read_given

    def one_too_few(paths: list[Path], format: str) -> ForeignSet:
        import dataclasses

        found = real(paths, format)
        return dataclasses.replace(found, num_annotations=found.num_annotations + 1)

    monkeypatch.setattr(fuzz, "read_given", one_too_few)
    with pytest.raises(AssertionError, match="input"):
        fuzz.feed(range(20))


def test_a_dead_batch_is_halved_to_the_input_that_kills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fuzz.came_of

    def deadly(number: int, path: Path, format: str) -> Counter[str]:
        if number == 37:
            os.kill(os.getpid(), signal.SIGSEGV)
        assert number != 11, "no such input"
        return real(number, path, format)

    monkeypatch.setattr(fuzz, "came_of", deadly)
    counts, bad = fuzz.run_batch(0, 40)
    assert [(one["input"], one["code"]) for one in bad] == [(11, 1), (37, -signal.SIGSEGV)]
    assert "no such input" in bad[0]["told"]
    assert sum(counts[name] for name in fuzz.BASES) == 38
