"""Events as lines of JSON and as metrics, as a run's settings say, and no secret in either."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path

import pytest

from maskmill.flows.config import load_config
from maskmill.flows.report.observe import EventLog, observed
from maskmill.storage.secret_words import blank_secrets
from maskmill.workers.run.events import PoolEvent, Progress, ShardDone, ShardFailed, WorkerLost
from maskmill.workers.run.spec import ShardReport
from tests.ports import free_port

REPORT = ShardReport(
    shard=3,
    attempt="a" * 16,
    num_images=10,
    num_annotated=8,
    num_masks=120,
    rejects={"too_small": 2},
    seconds_by_step={"masks.embed": 1.5, "images.read": 0.25},
    wall_s=2.0,
)
EVENTS: tuple[PoolEvent, ...] = (
    Progress(
        images_done=8,
        masks_done=120,
        num_rejects=2,
        shards_done=1,
        shards_in_work=(4, 5),
        workers_ready=2,
        workers_starting=1,
        gpu_bytes={0: 2**30, 1: 0},
    ),
    ShardDone(report=REPORT, attempts=2),
    ShardFailed(shard=7, attempts=3, reason="StoreUnavailable: s3://key:hunter2@host is silent"),
    WorkerLost(worker=1, shard=4, reason="killed", node_lost=False),
)


def test_every_event_is_a_line_with_run_shard_and_attempt() -> None:
    file = io.StringIO()
    log = EventLog(file, "gentle-otter", clock=lambda: 12.0)
    for event in EVENTS:
        log.see(event)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["shard_done", "shard_failed", "worker_lost"]
    assert all(line["run"] == "gentle-otter" and line["time"] == 12.0 for line in lines)
    assert (lines[0]["shard"], lines[0]["attempt"], lines[0]["attempts"]) == (3, "a" * 16, 2)
    assert lines[0]["rejects"] == {"too_small": 2}
    assert "hunter2" not in file.getvalue()
    assert [line["level"] for line in lines] == ["info", "error", "warning"]


def test_a_run_is_observed_as_its_settings_say(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "logs" / "run.jsonl"
    config = load_config(sets=[f"run.metrics_port={port}", f"run.log_file={file}"])
    with observed(config, "data", {3: 10, 7: 10}, "run-1") as see:
        for event in EVENTS:
            see(event)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b'maskmill_images_total{dataset="data",run="run-1"} 20' in answer.read()
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert events == ["run_started", "shard_done", "shard_failed", "worker_lost", "run_ended"]
    with observed(load_config(), "data", {}, "run-2") as see:
        see(EVENTS[0])  # neither asked for: nothing happens


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+asyncpg://me:pa55@host/db", "postgresql+asyncpg://me:***@host/db"),
        ("aws_secret_access_key = abc/DEF+1 rest", "aws_secret_access_key = *** rest"),
        ("PASSWORD=x", "PASSWORD=***"),
        ("output_token: 1 -> 2", "output_token: 1 -> 2"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_secrets_are_blanked_and_other_words_left(text: str, shown: str) -> None:
    assert blank_secrets(text) == shown
