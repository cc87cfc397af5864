"""Kill, tear, fill and damage a running job: nothing comes of it, and a job that is wrong is found."""

from __future__ import annotations

import sys
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


def test_a_wrong_commit_order_is_found(tmp_path: Path) -> None:
    """Run by the drill's parts, as the command has no way to break it."""
    from maskmill.flows.services.ray.cluster import loopback_environment

    loopback_environment()
    from maskmill.workers.drill.conductor import run_drill
    from maskmill.workers.drill.values import DrillSettings

    settings = DrillSettings(
        seed=2,
        num_faults=20,
        minutes=4.0,
        scratch=tmp_path / "x",
        build="tests.workers.drill.broken:records_first",
    )
    report = run_drill(settings, [sys.executable, "-m", "maskmill.flows.commands.operate.drill_driver"])
    assert not report.ok and report.lost > 0, report
