"""The deployment as a Prefect server sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import deploy, prefect_server
from flows.config import RunConfig, load_config
from tests.flows.asking import ask


def test_parameters_are_json_with_absolute_local_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("fast")
    found = deploy.parameters("data", ["in/*.jpg", "s3://bucket/in"], config)
    assert (found["dataset"], found["inputs"]) == (
        f"{tmp_path}/data",
        [f"{tmp_path}/in/*.jpg", "s3://bucket/in"],
    )
    assert RunConfig.model_validate(found["config"]) == config


@pytest.mark.ray
def test_a_deployment_is_registered_with_its_pool_schedule_and_parameters(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    server = prefect_server.start_server(environment)
    try:
        prefect_server.wait_ready(server)
        words = ["deploy", "data", "--input", "in", "--pool", "local", "--cron", "0 3 * * *"]
        ran = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *words],
            env={**environment, "PREFECT_API_URL": server.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "prefect worker start --pool local" in ran.stdout
        (made,) = ask(server.url, "deployments")
        assert (made["name"], made["work_pool_name"]) == ("default", "local")
        assert made["entrypoint"].endswith("flows/generate.py:generate")
        assert made["parameters"]["config"]["recipe"] == "nano"
        assert made["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    finally:
        prefect_server.stop_server(server)


def test_without_a_server_the_cure_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from flows.cli import main; main()",
            "deploy",
            "data",
            "--input",
            "in",
            "--pool",
            "x",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "prefect server start" in ran.stderr
    assert "Traceback" not in ran.stderr
