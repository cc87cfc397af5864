"""compose.yaml: what it names is there, its passwords are made and not written, and its store starts."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskmill.storage.stores.suite import PROMISES, probe
from tests.ports import free_port

INFRA = Path(__file__).parents[2] / "infra"
TEXT = (INFRA / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)


def made_environment() -> dict[str, str]:
    made = subprocess.run(["sh", str(INFRA / "make-env.sh")], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in made.stdout.splitlines())


def test_services_volumes_and_variables_are_there() -> None:
    for service in COMPOSE["services"].values():
        assert service.get("image")
        assert set(service.get("depends_on", ())) <= COMPOSE["services"].keys()
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "published on the loopback address alone"
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or source.startswith("${")
    needed = set(re.findall(r"\$\{(\w+)(?::\?|\})", TEXT))
    assert needed <= made_environment().keys()
    assert (INFRA / COMPOSE["services"]["s3"]["build"] / "Dockerfile").is_file()


def test_passwords_are_random_and_each_its_own() -> None:
    first, second = made_environment(), made_environment()
    for name in ("PREFECT_AUTH", "RAY_TOKEN", "POSTGRES_PASSWORD", "S3_KEY", "S3_SECRET"):
        assert first[name] != second[name] and len(first[name]) >= 48
    assert len(set(first.values())) == len(first)
    assert "infra/.env" in (INFRA.parent / ".gitignore").read_text()


def test_the_worker_joins_ray_as_the_stranger_to_its_nodes_that_it_is() -> None:
    worker = COMPOSE["services"]["worker"]
    assert "ray" not in worker["command"]
    assert worker["environment"]["MASKMILL_RAY_ADDRESS"] == "ray://ray:10001"
    for name in ("ray", "worker"):
        assert COMPOSE["services"][name]["shm_size"] == "1gb"


@pytest.mark.s3
@pytest.mark.timeout(600)
def test_the_store_keeps_every_promise_and_what_it_holds_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """store/start.sh as its image runs it, with compose's own variables and bucket command."""
    if shutil.which("radosgw") is None:
        pytest.skip("Ceph is not installed")
    port = free_port()
    keys = {name: value for name, value in made_environment().items() if name.startswith("S3_")}
    environment = {
        **keys,
        "STORE": str(tmp_path / "store"),
        "SIZE": "4G",
        "LISTEN": f"127.0.0.1:{port}",
        "MON_PORT": str(free_port()),
    }
    named = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": keys["S3_KEY"],
        "AWS_SECRET_ACCESS_KEY": keys["S3_SECRET"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in named.items():
        monkeypatch.setenv(name, value)

    for turn in ("first", "after a restart"):
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                ["sh", str(INFRA / "store" / "start.sh")],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _until_ready(process, tmp_path / "log")
            if turn == "first":
                bucket = COMPOSE["services"]["bucket"]["command"]
                subprocess.run(bucket, check=True, timeout=100)
                outcomes = probe("s3://maskmill/dataset")
                assert len(outcomes) == len(PROMISES)
                assert [one.name for one in outcomes if not one.kept] == []
                _client().put_object(Bucket="maskmill", Key="kept", Body=b"kept")
            else:
                assert _client().get_object(Bucket="maskmill", Key="kept")["Body"].read() == b"kept"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(180) == 0  # it writes what it holds


def _until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while "ready: S3" not in log.read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.3)


def _client() -> Any:
    import boto3

    return boto3.client("s3")
