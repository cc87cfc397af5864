"""Deployments on a real Prefect server: two datasets side by side, and what a new one takes the place of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.deploy import dataset_name
from tests.flows.asking import Run, ask, post

pytestmark = pytest.mark.ray


def nights(api: PrefectApi) -> dict[str, list[str]]:
    """Every deployment's schedules by its name."""
    return {
        found["name"]: [each["schedule"]["cron"] for each in found["schedules"]]
        for found in ask(api, "deployments")
    }


def test_another_dataset_keeps_its_night_and_replacing_says_what(api: PrefectApi, run: Run) -> None:
    first, second = dataset_name("/a/data"), dataset_name("/b/data")
    night = ("--flow", "relabel", "--cron", "0 3 * * *")
    assert "replaces" not in run("deploy", "/a/data", *night).stderr
    assert "replaces" not in run("deploy", "/b/data/", "--flow", "relabel").stderr
    assert nights(api) == {first: ["0 3 * * *"], second: []}

    same = run("deploy", "/a/data", *night)
    assert f"replaces relabel/{first}: nothing changed" in same.stderr
    other = run("deploy", "/a/data", "--flow", "relabel", "--set", "masks.predicted_iou=0.4", "--tag", "x")
    assert "schedule 0 3 * * * UTC -> none" in other.stderr
    assert "config.masks.predicted_iou unset -> 0.4" in other.stderr
    assert "tags maskmill, relabel -> maskmill, relabel, x" in other.stderr
    assert nights(api) == {first: [], second: []}

    weekly = run("deploy", "/a/data", "--flow", "relabel", "--name", "weekly", "--cron", "0 3 * * 0")
    assert weekly.returncode == 0 and "replaces" not in weekly.stderr
    assert nights(api)[f"{first}-weekly"] == ["0 3 * * 0"]


def test_one_from_before_names_carried_the_dataset_is_named_and_replaced(
    api: PrefectApi, run: Run, home: Path
) -> None:
    flow = post(api, "flows/", {"name": "generate"})["id"]
    old = {
        "name": "default",
        "flow_id": flow,
        "tags": ["maskmill", "generate"],
        "parameters": {"dataset": "/old/data", "inputs": ["/in"]},
        "schedules": [{"schedule": {"cron": "0 4 * * *", "timezone": "UTC"}, "active": True}],
    }
    post(api, "deployments/", old)
    environment = {"PREFECT_API_URL": api.url, "PREFECT_API_AUTH_STRING": f"maskmill:{api_password(api)}"}
    setup = subprocess.run(
        [sys.executable, "-m", "maskmill.flows.services.prefect.lost_runs", "setup", "mine"],
        env={**os.environ, "PREFECT_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "deployment generate/default of /old/data is from an earlier maskmill" in setup.stdout
    assert "maskmill deploy /old/data --flow generate with its --cron" in setup.stdout

    other = run("deploy", "/new/data", "--input", "/in", "--pool", "mine")
    assert "replaces" not in other.stderr
    assert "default" in nights(api), "another dataset's is left alone"
    renamed = run("deploy", "/old/data", "--input", "/in", "--pool", "mine", "--cron", "0 4 * * *")
    assert "replaces generate/default (an earlier maskmill's): " in renamed.stderr
    assert "schedule" not in renamed.stderr, "the same"
    known = nights(api)
    assert "default" not in known and known[dataset_name("/old/data")] == ["0 4 * * *"]


def api_password(api: PrefectApi) -> str:
    import base64

    return base64.b64decode(api._auth["Authorization"].split()[1]).decode().partition(":")[2]


def test_a_wrong_secret_is_told_with_the_cure(run: Run) -> None:
    refused = run("deploy", "/a/data", "--flow", "relabel", PREFECT_API_AUTH_STRING="me:wrong")
    assert refused.returncode == 2
    assert "asks for a secret" in refused.stderr and "Traceback" not in refused.stderr


def test_a_pool_of_the_users_own_stays_as_it_is(api: PrefectApi, run: Run) -> None:
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    for name in ("theirs", "maskmill"):
        found = {"name": name, "type": "process", "base_job_template": template}
        api.send(f"work_pools/{name}", {"base_job_template": template}, method="PATCH") if any(
            pool["name"] == name for pool in ask(api, "work_pools")
        ) else post(api, "work_pools/", found)
        assert run("deploy", "/c/data", "--flow", "relabel", "--pool", name).returncode == 0
    pools = {pool["name"]: pool["base_job_template"] for pool in ask(api, "work_pools")}
    assert pools["theirs"] == template
    assert pools["maskmill"]["variables"]["additionalProperties"] is False, "ours is closed"
