"""Ray's own processes are killed under a working driver: it notices, says so, and begins again once where it
started them itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run(part: str, times: int, folder: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.flows.runs.lost_node", part, str(times), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.ray
@pytest.mark.drill
@pytest.mark.parametrize("part", ["raylet", "gcs_server", "ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_a_run_whose_ray_is_killed_begins_again_and_ends_whole(part: str, tmp_path: Path) -> None:
    found = run(part, 1, tmp_path)
    assert (found["killed"], found["left"], found["error"]) == (1, 0, None)
    (note,) = [text for text in found["notes"] if "has ended" in text]
    assert "Ray is started again" in note


@pytest.mark.ray
@pytest.mark.drill
def test_a_second_loss_ends_the_run_with_how_to_resume(tmp_path: Path) -> None:
    found = run("raylet", 2, tmp_path)
    assert found["killed"] == 2 and found["left"] > 0
    assert "run the same command again" in found["error"]
    assert found["seconds"] < 120


@pytest.mark.ray
@pytest.mark.drill
def test_a_joined_cluster_whose_head_is_killed_ends_the_run_with_how_to_go_on(tmp_path: Path) -> None:
    found = run("head", 1, tmp_path)
    assert found["killed"] == 1 and found["left"] > 0
    assert "is lost: its control service has not answered" in found["error"]
    assert "run the same command again" in found["error"]
    assert found["seconds"] < 60  # Ray would have ended the process, by a line of its own
