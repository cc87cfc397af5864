"""A job that commits in the wrong order is found by the drill: it can fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]


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
