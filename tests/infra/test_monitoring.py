"""The board and the alert rules: metrics of a run's page, PromQL that Prometheus takes, alerts when told.

The alerts are played over made-up series by promtool, Prometheus' own checker.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskmill.flows.report.metrics import RunMetrics
from tests.flows.report.test_observe import EVENTS
from tests.infra.rendering import KUBERNETES

MONITORING = KUBERNETES / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
BOARD: dict[str, Any] = json.loads((MONITORING / "maskmill.json").read_text())

ALERTS = {rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
PANELS = {
    f"{panel['title']} {number}": target["expr"].replace("$dataset", ".*").replace("$run", ".*")
    for panel in BOARD["panels"]
    for number, target in enumerate(panel.get("targets", ()))
}
CHOICES = {one["name"]: one["query"] for one in BOARD["templating"]["list"] if one["type"] == "query"}

RUN = '{run="r",dataset="d"}'
IN_WORK = '{run="r",dataset="d",state="in_work"}'


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """What a run's page has: a metric's samples by name, and their labels."""
    metrics = RunMetrics(shards_total=9, images_total=90, labels={"run": "r", "dataset": "d"})
    for event in EVENTS:
        metrics.see(event)
    found: dict[str, set[str]] = {}
    for family in metrics.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


@pytest.mark.parametrize(("name", "query"), [*ALERTS.items(), *PANELS.items(), *CHOICES.items()])
def test_every_metric_and_label_is_on_a_runs_page(
    name: str, query: str, exported: dict[str, set[str]]
) -> None:
    named = re.findall(r"\bmaskmill_\w+", query)
    assert named or "ray_" in query, f"{name} reads nothing of ours"
    assert set(named) <= set(exported), f"{name}: {set(named) - set(exported)}"

    labels = {label for one in named for label in exported[one]}
    selected = re.findall(r"(\w+)=~?\"", query)
    grouped = [
        word for words in re.findall(r"(?:by|ignoring) \(([^)]*)\)", query) for word in words.split(", ")
    ]
    if named:
        assert {*selected, *grouped} <= labels, f"{name}: {({*selected, *grouped}) - labels}"


def test_prometheus_takes_every_query(promtool: str, tmp_path: Path) -> None:
    records = [{"record": f"board:{place}", "expr": query} for place, query in enumerate(PANELS.values())]
    board = {"groups": [{"name": "board", "rules": records}]}
    for name, rules in {"rules.yml": RULES, "board.yml": board}.items():
        (tmp_path / name).write_text(yaml.safe_dump(rules))
        done = subprocess.run(
            [promtool, "check", "rules", name], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


PLAYS: dict[str, tuple[dict[str, str], int, set[str]]] = {
    "a run goes on": (
        {f"maskmill_images_done{RUN}": "0+20x120", f"maskmill_shards{IN_WORK}": "2x120"},
        100,
        set(),
    ),
    "workers are slow to start": (
        {f"maskmill_images_done{RUN}": "0x120", f"maskmill_shards{IN_WORK}": "2x120"},
        20,
        set(),
    ),
    "no image for half an hour and more": (
        {f"maskmill_images_done{RUN}": "7x120", f"maskmill_shards{IN_WORK}": "2x120"},
        40,
        {"MaskmillNoProgress"},
    ),
    "nothing is left to do": (
        {f"maskmill_images_done{RUN}": "7x120", f"maskmill_shards{IN_WORK}": "0x120"},
        100,
        set(),
    ),
    "a shard was given up": (
        {'maskmill_shards{run="r",dataset="d",state="failed"}': "0x9 1x20"},
        20,
        {"MaskmillShardsFailed"},
    ),
    "a tenth is rejected": (
        {
            f"maskmill_images_done{RUN}": "0+20x120",
            'maskmill_rejects_total{run="r",dataset="d",reason="too_small"}': "0+1x120",
            'maskmill_rejects_total{run="r",dataset="d",reason="damaged"}': "0+1x120",
        },
        100,
        {"MaskmillManyRejects"},
    ),
    "workers die": ({f"maskmill_workers_lost_total{RUN}": "0+1x120"}, 60, {"MaskmillWorkersDie"}),
}
"""What happens: the series, a value a minute; when is looked, in minutes; what fires then."""


@pytest.mark.parametrize("play", PLAYS)
def test_an_alert_fires_when_it_says(play: str, promtool: str, tmp_path: Path) -> None:
    series, minutes, fires = PLAYS[play]
    asked = [
        {
            "eval_time": f"{minutes}m",
            "expr": f'count by (alertname) (ALERTS{{alertstate="firing",alertname=~"{"|".join(ALERTS)}"}})',
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fires)],
        }
    ]
    values = [{"series": name, "values": value} for name, value in series.items()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["rules.yml"],
                "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": values, "promql_expr_test": asked}],
            }
        )
    )
    done = subprocess.run(
        [promtool, "test", "rules", "play.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
