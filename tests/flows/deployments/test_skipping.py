"""A scheduled relabel that falls into another's work: skipped, with the holder's name and a count."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.config import load_config
from maskmill.storage.drivers.one_writer import writing
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.asking import ask, post
from tests.flows.running import Up, running_up, until
from tests.flows.runs.test_relabel import SETS, annotate

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def ended(up: Up, wait_s: float, *tags: str) -> dict[str, Any]:
    """How a run of the only deployment ends; `wait_s` is how long it may wait for the dataset."""
    (made,) = ask(up.api, "deployments")
    body = {"state": {"type": "SCHEDULED"}, "parameters": {"wait_s": wait_s}, "tags": [*made["tags"], *tags]}
    run = post(up.api, f"deployments/{made['id']}/create_flow_run", body)["id"]
    until(lambda: up.look(run)["state_type"] in ENDED, "the run ends")
    return up.look(run)


def test_a_scheduled_run_is_skipped_and_a_persons_is_told(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inputs", 2)
    root = str(tmp_path / "data")
    annotate(root, [str(tmp_path / "inputs")], load_config("nano", sets=SETS))
    with running_up(tmp_path) as up:
        said = up.run("deploy", root, "--flow", "relabel", "--cron", "0 3 29 2 *")
        command = next(line.strip() for line in said.splitlines() if "prefect deployment run" in line)
        with writing(open_store(root), "a long relabel"):
            first = ended(up, 0.0, "auto-scheduled")
            second = ended(up, 0.0, "auto-scheduled")
            by_person = ended(up, 0.0)

        for times, run in enumerate((first, second), 1):
            assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Skipped")
            message = run["state"]["message"]
            assert f"({times} in a row)" in message
            assert "a long relabel on " in message and f"process {os.getpid()}, works on" in message
        assert by_person["state_type"] == "FAILED" and "a long relabel" in by_person["state"]["message"]
        assert len([found for found in ask(up.api, "artifacts") if found["key"] == "maskmill-skipped"]) == 2

        before = len(ask(up.api, "flow_runs"))
        up.run(*command.removeprefix("maskmill ").split())
        until(lambda: len(ask(up.api, "flow_runs")) > before, "the printed command starts a run")
        free = ended(up, 60.0, "auto-scheduled")
        assert (free["state_type"], free["state_name"]) == ("COMPLETED", "Completed")
