"""Kill, tear, fill and damage a running job: nothing comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.drill.command import SUMS, drill, sums_of

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


def test_nothing_comes_of_forty_faults(tmp_path: Path) -> None:
    code, report = drill("--seed", "1", "--faults", "40", "--minutes", "5", "--scratch", str(tmp_path / "x"))
    assert sums_of(report) == SUMS
    assert code == 0 and report["ok"]
    assert report["num_faults"] >= 35
    kinds = {"worker_kill", "node_kill", "driver_kill", "torn_write", "refused_write", "full_disk"}
    assert kinds | {"poison_image", "damaged_input", "damaged_object"} <= set(report["faults"])
