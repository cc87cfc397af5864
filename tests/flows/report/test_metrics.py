"""Metrics as Prometheus reads them, and a port for every run."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from maskmill.flows.config import ConfigError, load_config
from maskmill.flows.report import metrics as metrics_module
from maskmill.flows.report.metrics import RunMetrics, serving
from maskmill.flows.report.observe import observed
from maskmill.flows.report.report import watching
from tests.flows.report.test_observe import EVENTS
from tests.ports import free_port


def text(metrics: RunMetrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_prometheus_reads_every_number() -> None:
    metrics = RunMetrics(shards_total=9, images_total=90, labels={"run": 'odd "run"\n', "dataset": "d"})
    for event in EVENTS:
        metrics.see(event)
    found = {
        (
            sample.name,
            sample.labels.get("reason")
            or sample.labels.get("step")
            or sample.labels.get("state")
            or sample.labels.get("worker"),
        ): sample.value
        for family in text_string_to_metric_families(text(metrics))
        for sample in family.samples
    }
    assert found["maskmill_images_done", None] == 10
    assert found["maskmill_masks_done", None] == 120
    assert found["maskmill_rejects_total", "too_small"] == 2
    assert found["maskmill_step_seconds_total", "masks.embed"] == 1.5
    assert found["maskmill_shards", "waiting"] == 9 - 1 - 1 - 2
    assert found["maskmill_gpu_memory_bytes", "0"] == 2**30
    assert found["maskmill_workers", "starting"] == 1
    assert found["maskmill_workers_lost_total", None] == 1
    assert found["maskmill_shard_seconds_count", None] == 1
    labels = {s.labels["run"] for f in text_string_to_metric_families(text(metrics)) for s in f.samples}
    assert labels == {'odd "run"\n'}


def some() -> RunMetrics:
    return RunMetrics(shards_total=1, images_total=4, labels={"run": "r", "dataset": "d"})


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        found: bytes = answer.read()
        return found.decode()


def test_runs_beside_each_other_take_the_next_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(some(), 0) as first, serving(some(), first) as second:
        assert second > first
        for port in (first, second):
            assert 'maskmill_images_total{dataset="d",run="r"} 4.0' in scraped(port)
        monkeypatch.setattr(metrics_module, "PORTS", 1)
        with pytest.raises(ConfigError, match="it and the 0 after it are taken"), serving(some(), first):
            pass


def test_a_host_that_isnt_this_machines_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKMILL_METRICS_HOST", "192.0.2.1")
    with pytest.raises(ConfigError, match=r"cannot be opened on 192\.0\.2\.1"), serving(some(), 0):
        pass


def test_another_port_than_asked_for_is_told() -> None:
    told: list[str] = []

    class Listener:
        def note(self, text: str) -> None:
            told.append(text)

    port = free_port()
    config = load_config(sets=[f"run.metrics_port={port}"])
    with watching(Listener()), observed(config, "d", {}, "one"), observed(config, "d", {}, "two"):  # type: ignore[arg-type]
        (line,) = told
        assert line.startswith(f"run.metrics_port={port} is another run's: this one's is ")
        assert "maskmill_" in scraped(int(line.rpartition(" ")[2]))
