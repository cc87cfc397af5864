"""The deployment as a Prefect server sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskmill.flows.config import ConfigError, RunConfig, load_config
from maskmill.flows.services.prefect import deploy
from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.deploy import dataset_name
from tests.flows.asking import Run, ask


def test_parameters_are_json_with_absolute_local_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("fast")
    found = deploy.parameters("generate", "data", ["in/*.jpg", "s3://bucket/in"], config)
    assert (found["dataset"], found["inputs"]) == (
        f"{tmp_path}/data",
        [f"{tmp_path}/in/*.jpg", "s3://bucket/in"],
    )
    assert RunConfig.model_validate(found["config"]) == config


def test_a_schedule_is_its_cron_in_its_time_zone() -> None:
    def schedules(cron: str | None) -> list[tuple[str, str | None]]:
        """As Prefect gets them."""
        found = deploy.Deployment(
            flow="relabel", name="", parameters={}, pool="local", cron=cron, timezone="Europe/Berlin"
        )
        return [(one.cron, one.timezone) for one in found.schedules()]

    assert schedules("0 3 * * *") == [("0 3 * * *", "Europe/Berlin")]
    assert schedules(None) == []


@pytest.mark.ray
def test_flows_are_registered_with_pool_schedule_limit_and_forms(api: PrefectApi, run: Run) -> None:
    flows = ("generate", "relabel", "retrain", "evaluate", "loop")
    words = ["deploy", "data", "--input", "in", "--pool", "local", "--cron", "0 3 * * *"]
    words += ["--timezone", "Europe/Berlin", "--tag", "night", *(w for f in flows for w in ("--flow", f))]
    ran = run(*words)
    assert ran.returncode == 0, ran.stderr
    assert "prefect worker start --pool local" in ran.stdout
    known = ask(api, "deployments")
    made = {found["entrypoint"].rpartition(".")[2]: found for found in known}
    assert set(made) == set(flows)
    relabel, name = made["relabel"], dataset_name(f"{Path.cwd()}/data")
    assert (relabel["name"], relabel["work_pool_name"]) == (name, "local")
    assert relabel["entrypoint"] == "maskmill.flows.deployments.relabel.relabel"
    schedule = relabel["schedules"][0]["schedule"]
    assert (schedule["cron"], schedule["timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert made["generate"]["global_concurrency_limit"]["limit"] == 1
    assert relabel["global_concurrency_limit"] is None, "the dataset's own lock, which names its holder"
    assert relabel["job_variables"] == {}
    assert {"maskmill", "relabel", "night"} <= set(relabel["tags"])
    assert "config" not in relabel["parameters"], "by the settings of the generation it finds"
    assert made["generate"]["parameters"]["config"]["recipe"] == "nano"
    form = relabel["parameter_openapi_schema"]
    assert {"max_shards", "max_gpu_hours", "order", "sign_off"} <= set(form["properties"])
    assert "MaskSettings" in form["definitions"], "settings are a form of their own"


def test_without_a_server_the_cure_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "MASKMILL_HOME": str(tmp_path)}
    environment.pop("PREFECT_API_URL", None)
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "from maskmill.flows.cli import main; main()",
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
    assert "maskmill up" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_gate_without_its_pictures_is_refused(tmp_path: Path) -> None:
    from maskmill.flows.deployments.retrain import retrain

    with pytest.raises(ConfigError, match="coco and images go together"):
        retrain.fn(str(tmp_path / "data"), coco="truth.json")
