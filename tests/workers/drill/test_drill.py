"""Short drills: nothing comes of some sixty faults, and a commit order that is wrong is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskmill.workers.drill.upsets import names

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
ENTRY = "from maskmill.flows.cli import main; main()"


def drill(*words: str, environment: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "drill", "--json", "--debug", *words],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_nothing_comes_of_sixty_faults(tmp_path: Path) -> None:
    code, report = drill("--seed", "1", "--faults", "60", "--minutes", "5", "--scratch", str(tmp_path / "x"))
    sums = {name: report[name] for name in ("lost", "duplicated", "different", "undetected", "problems")}
    assert sums == {"lost": 0, "duplicated": 0, "different": 0, "undetected": 0, "problems": []}
    assert code == 0 and report["ok"]
    assert report["num_faults"] >= 55
    kinds = {"worker_kill", "node_kill", "driver_kill", "torn_write", "refused_write", "full_disk"}
    assert kinds | {"poison_image", "damaged_input", "damaged_object"} <= set(report["faults"])


def test_nothing_comes_of_upsets(tmp_path: Path) -> None:
    words = ("--kinds", "upsets", "--seed", "2", "--faults", "20", "--minutes", "5")
    code, report = drill(*words, "--scratch", str(tmp_path / "x"))
    sums = {name: report[name] for name in ("lost", "duplicated", "different", "undetected", "problems")}
    assert sums == {"lost": 0, "duplicated": 0, "different": 0, "undetected": 0, "problems": []}
    assert code == 0 and report["num_faults"] >= 10
    assert {name for name in report["faults"] if name.startswith("damaged_")} == set(names.DAMAGES)
    assert set(report["faults"]) & names.COMMANDS and report["faults"]["clock_jump"]


def test_a_wrong_commit_order_is_found(tmp_path: Path) -> None:
    """Run by the drill's parts, as the command has no way to break it."""
    from maskmill.flows.services.ray.cluster import loopback_environment

    loopback_environment()
    from maskmill.workers.drill.conductor import run_drill
    from maskmill.workers.drill.values import DrillSettings

    settings = DrillSettings(
        seed=2,
        num_faults=30,
        minutes=4.0,
        scratch=tmp_path / "x",
        build="tests.workers.drill.broken:records_first",
    )
    report = run_drill(settings, [sys.executable, "-m", "maskmill.flows.commands.operate.drill_driver"])
    assert not report.ok and report.lost > 0, report


@pytest.mark.s3
def test_nothing_comes_of_an_unreliable_s3_store(tmp_path: Path) -> None:
    from tests.ceph import missing_programs, running_ceph

    if missing := missing_programs():
        pytest.skip(f"no real S3 store: {', '.join(missing)} not installed; see tests/ceph.py")
    with running_ceph(tmp_path / "ceph") as ceph:
        ceph.make_bucket("drill")
        words = ("--seed", "3", "--faults", "26", "--minutes", "5", "--scratch", str(tmp_path / "x"))
        code, report = drill(*words, "--store", "s3://drill/data", environment=ceph.environment)
    sums = {name: report[name] for name in ("lost", "duplicated", "different", "undetected", "problems")}
    assert sums == {"lost": 0, "duplicated": 0, "different": 0, "undetected": 0, "problems": []}
    assert code == 0 and {"http_500", "http_503", "slow", "cut", "torn_upload"} <= set(report["faults"])
