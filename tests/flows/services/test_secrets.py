"""No secret stays behind: planted credentials are looked for in everything that a run writes, on S3's API."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.flows.config import load_config
from maskmill.flows.report.observe import observed
from maskmill.flows.runs.steps import holding, planning, publishing
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.fakes import write_pictures
from tests.storage.conftest import MOTO_ENVIRONMENT, moto_endpoint, new_bucket

__all__ = ["moto_endpoint"]

PLANTED = ("planted-secret-key", "planted-prefect-password", "planted-database-password")


def test_nothing_that_a_run_writes_holds_a_credential(
    moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**MOTO_ENVIRONMENT, "AWS_ENDPOINT_URL_S3": moto_endpoint}
    bucket = new_bucket({**environment, "AWS_SECRET_ACCESS_KEY": PLANTED[0]}, monkeypatch)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", f"user:{PLANTED[1]}")
    monkeypatch.setenv("MASKMILL_DATABASE", f"postgresql+asyncpg://me:{PLANTED[2]}@host/db")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    root, log_file = f"{bucket}/data", tmp_path / "run.jsonl"
    write_pictures(tmp_path / "inputs", 2)
    sets = ["masks.points_per_side=4", "segmenter.threads=1", f"run.log_file={log_file}"]
    config = load_config("nano", sets=sets)
    planning.plan_images(root, [str(tmp_path / "inputs")], config, None)
    spec = planning.describe_run(root, config)
    stages = build_stages(spec)
    with observed(config, root, {0: 2}, "run"), holding.driving(root):
        run_shard(stages, ShardTask(shard=0, attempt=new_attempt()))
        heartbeats = [open_store(root).read(info.name) for info in open_store(root).list("drivers/")]
    publishing.publish_and_verify(spec, config)

    store = open_store(root)
    written = [store.read(info.name) for info in store.list()]
    said = [CliRunner().invoke(app, [*words, "--json"]) for words in (["status", root], ["log", root])]
    texts = [*written, *heartbeats, log_file.read_bytes(), *(result.output.encode() for result in said)]
    assert len(texts) > 8
    assert all(result.exit_code == 0 for result in said)
    for secret in PLANTED:
        assert not any(secret.encode() in text for text in texts), secret
