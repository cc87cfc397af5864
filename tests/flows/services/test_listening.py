"""Every socket that a local run, and `maskmill up` with its Ray, listen on: loopback alone, and no stranger
who gets there without the secret is served.

What may be asked without one is listed: whether something lives, never what, and never to run anything.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.fakes import write_pictures
from tests.flows.doors import MARK, Door, answer_to_stranger, doors_of
from tests.flows.running import running_up
from tests.flows.runs.test_generate import Maskmill
from tests.ports import free_port

JOBS = ("/api/jobs/", "/api/v0/nodes", "/nodes?view=summary", "/logs", "/api/job_agent/jobs/")
"""Ray's job server, state and logs: whoever may ask these may run code."""


def strangers_welcome(doors: set[Door]) -> list[str]:
    """The doors that answered one of `JOBS` or Prefect's API as if the secret had been shown.

    Prometheus' pages answer every path with counters of the process, which say nothing of the work.
    """
    asked = [(door, path) for door in doors for path in (*JOBS, "/api/flows/count", "/api/deployments/")]
    return [
        f"{door} {path}: {said[:300]}"
        for door, path in asked
        if " 200" in (said := answer_to_stranger(door, path))[:20] and "# HELP" not in said
    ]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_local_run_listens_on_loopback_alone(nano_weights: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 6)
    mark = uuid.uuid4().hex
    program = Maskmill(tmp_path / "prefect", nano_weights)
    program.environment[MARK] = mark
    running = program.start(tmp_path / "data", tmp_path / "in", "--json", "--workers", "1")

    seen: set[Door] = set()
    welcome: list[str] = []
    while running.poll() is None:
        new = doors_of(mark) - seen
        seen |= new
        time.sleep(0.5)
        welcome += strangers_welcome(new)
    told = running.communicate()[0]
    assert running.returncode == 0, told
    programs = {door.program for door in seen}
    assert {"raylet", "gcs_server"} <= programs, "the run was seen at work"
    assert [door for door in seen if not door.is_loopback] == []
    assert welcome == []
    assert 8265 not in {door.port for door in seen}, "no dashboard unless it is asked for"


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_up_with_ray_listens_on_loopback_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, port = uuid.uuid4().hex, free_port()
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with running_up(tmp_path, ray_port=port):
        doors = doors_of(mark)
        assert {"raylet", "gcs_server"} <= {door.program for door in doors}
        assert [door for door in doors if not door.is_loopback] == []
        assert strangers_welcome(doors) == []
        assert "refused" in told_to_wrong_token(port, tmp_path)


def told_to_wrong_token(port: int, folder: Path) -> str:
    """What a driver with a token of its own is told by Ray's head."""
    code = (
        "from maskmill.flows.services.ray import cluster\n"
        f"try:\n cluster.connect('127.0.0.1:{port}')\n"
        "except cluster.ClusterError as exc: print('refused', exc)\n"
    )
    (folder / "other").write_text("0" * 64)
    environment = {"RAY_AUTH_TOKEN_PATH": str(folder / "other"), "PATH": "/usr/bin", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=120,
    )
    return done.stdout + done.stderr
