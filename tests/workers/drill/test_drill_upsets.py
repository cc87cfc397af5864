"""Pauses, clocks, lost services, damaged records, commands at once: nothing comes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.workers.drill.upsets import names
from tests.workers.drill.command import SUMS, drill, sums_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


def test_nothing_comes_of_upsets(tmp_path: Path) -> None:
    words = ("--kinds", "upsets", "--seed", "2", "--faults", "20", "--minutes", "5")
    code, report = drill(*words, "--scratch", str(tmp_path / "x"))
    assert sums_of(report) == SUMS
    assert code == 0 and report["num_faults"] >= 10
    assert {name for name in report["faults"] if name.startswith("damaged_")} == set(names.DAMAGES)
    assert set(report["faults"]) & names.COMMANDS and report["faults"]["clock_jump"]
