"""Deployments that an earlier maskmill registered run on, or are named with the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.deploy import FLOWS
from maskmill.flows.services.prefect.entrypoints import entrypoint_of
from maskmill.flows.services.prefect.server import PrefectServer
from tests.flows.asking import ask

RENAME = """
import sys
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
with get_client(sync_client=True) as client:
    for found in client.read_deployments():
        earlier = "flows." if found.work_pool_name == "ours" else "maskmill.flows.runs."
        old = found.entrypoint.replace("maskmill.flows.deployments.", earlier)
        client.update_deployment(found.id, DeploymentUpdate(entrypoint=old))
"""


def run(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("flow", FLOWS)
def test_entrypoints_can_be_imported_from_anywhere(flow: str) -> None:
    assert entrypoint_of(flow).startswith("maskmill.flows.deployments.")


@pytest.mark.ray
def test_old_names_of_flows_are_mended_in_our_pool_and_named_elsewhere(
    api: PrefectApi, server: PrefectServer, home: Path
) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(home), "MASKMILL_HOME": str(home)}
    environment |= {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": server.secret}
    words = ["-m", "maskmill", "deploy", "data", "--flow", "relabel", "--cron", "0 3 * * *"]
    run(environment, *words, "--pool", "ours")
    run(environment, *words, "--pool", "theirs", "--name", "far")
    run(environment, "-c", RENAME)
    before = deployments(api)
    earlier = {"flows.relabel.relabel", "maskmill.flows.runs.relabel.relabel"}
    assert {found["entrypoint"] for found in before.values()} == earlier

    told = run(environment, "-m", "maskmill.flows.services.prefect.lost_runs", "setup", "ours").splitlines()
    after = deployments(api)
    ours, theirs = (
        next(found for found in after.values() if found["work_pool_name"] == pool)
        for pool in ("ours", "theirs")
    )
    assert ours["entrypoint"] == "maskmill.flows.deployments.relabel.relabel"
    assert ours["schedules"] == before[ours["id"]]["schedules"]
    assert ours["parameters"] == before[ours["id"]]["parameters"]
    assert theirs == before[theirs["id"]]
    mended, named = sorted(told, key=lambda line: "To register it again" in line)
    assert "its flow is flows.relabel.relabel" in mended
    assert "changed to maskmill.flows.deployments.relabel.relabel" in mended
    assert "maskmill deploy" in named and "--name far --pool theirs" in named

    again = run(environment, "-m", "maskmill.flows.services.prefect.lost_runs", "setup", "ours").splitlines()
    assert again == [named]


def deployments(api: PrefectApi) -> dict[str, dict[str, Any]]:
    """Every deployment by id."""
    return {str(found["id"]): found for found in ask(api, "deployments")}
