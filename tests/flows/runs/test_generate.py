"""Whole runs, as a user starts them: Ray, Prefect and the shipped model's shape, on a handful of pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskmill.flows.services.prefect import server as prefect_server
from maskmill.flows.services.prefect.api import PrefectApi
from tests.fakes import write_pictures
from tests.flows.asking import ask

QUICK = (
    "masks.points_per_side=4",
    "masks.predicted_iou=0",
    "masks.stability=0",
    "masks.drop_small=false",
    "masks.max_coverage=none",
    "run.shard_size=2",
)
ENTRY = "from maskmill.flows.cli import main; main()"


def _hear_ctrl_c() -> None:
    """In a new process: a shell's background jobs ignore SIGINT, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Maskmill:
    """The command, with a Prefect history of its own."""

    def __init__(self, home: Path, weights: Path) -> None:
        self.environment = {**os.environ, "PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.environment.pop("PREFECT_API_URL", None)
        self._sets = [word for pair in (*QUICK, f"segmenter.weights={weights}") for word in ("--set", pair)]

    def generate(self, dataset: Path, inputs: Path, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(dataset, inputs, *more),
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )

    def start(self, dataset: Path, inputs: Path, *more: str, separate: bool = False) -> subprocess.Popen[str]:
        """In the background; both outputs are one unless `separate`."""
        return subprocess.Popen(
            self.words(dataset, inputs, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if separate else subprocess.STDOUT,
            text=True,
            env=self.environment,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509
        )

    def words(self, dataset: Path, inputs: Path, *more: str) -> list[str]:
        command = [sys.executable, "-c", ENTRY, "generate", str(dataset), "--input", str(inputs)]
        return [*command, *self._sets, *more]


@pytest.fixture(scope="module")
def maskmill(tmp_path_factory: pytest.TempPathFactory, nano_weights: Path) -> Maskmill:
    return Maskmill(tmp_path_factory.mktemp("prefect"), nano_weights)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_from_pictures_to_generation_and_a_second_with_nothing_to_do(
    maskmill: Maskmill, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", 5)
    dataset = tmp_path / "data"
    first = maskmill.generate(dataset, tmp_path / "in", "--export", str(tmp_path / "out"), "--json")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert {
        name: report[name] for name in ("images", "annotated", "new_images", "generation", "published")
    } == {
        "images": 5,
        "annotated": 5,
        "new_images": 5,
        "generation": 1,
        "published": True,
    }
    assert (report["missing"], report["duplicated"], report["damaged"]) == (0, 0, 0)
    assert report["masks"] > 0
    assert report["images_per_s"] > 0
    assert list((tmp_path / "out").glob("*.tar"))

    second = maskmill.generate(dataset, tmp_path / "in")
    assert second.returncode == 0, second.stderr
    assert "Nothing to do: 5 images in generation 1; nothing was recomputed" in second.stdout
    assert "Ray" not in second.stderr
    assert len(list(dataset.glob("masks/*/commits/*.json"))) == 3
    check_history(maskmill)


def check_history(maskmill: Maskmill) -> None:
    """Prefect remembers the one run, its few tasks, and its artifacts."""
    server = prefect_server.start_server(maskmill.environment)
    try:
        prefect_server.wait_ready(server)
        api = PrefectApi(server.url, server.secret)
        runs = ask(api, "flow_runs")
        assert [run["state"]["type"] for run in runs] == ["COMPLETED"]
        tasks = {run["name"].rsplit("-", 1)[0] for run in ask(api, "task_runs")}
        assert tasks == {"plan", "annotate", "verify and publish", "export", "report"}
        artifacts = {found["type"]: found for found in ask(api, "artifacts")}
        assert set(artifacts) == {"progress", "table"}, "no sheet: the run's own server has no pages"
        assert artifacts["progress"]["data"] == 100.0
    finally:
        prefect_server.stop_server(server)


@pytest.mark.ray
@pytest.mark.drill
@pytest.mark.timeout(900)
def test_ctrl_c_keeps_what_is_committed_and_the_same_command_goes_on(
    maskmill: Maskmill, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", 24)
    dataset = tmp_path / "data"
    process = maskmill.start(dataset, tmp_path / "in", "--set", "masks.points_per_side=8", "--workers", "1")
    while not (before := list(dataset.glob("masks/*/commits/*.json"))):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "Resume with the same command" in text
    assert "Traceback" not in text
    committed = len(list(dataset.glob("masks/*/commits/*.json")))
    assert len(before) <= committed < 12
    resumed = maskmill.generate(dataset, tmp_path / "in", "--set", "masks.points_per_side=8", "--json")
    assert resumed.returncode == 0, resumed.stderr
    report = json.loads(resumed.stdout)
    assert (report["annotated"], report["duplicated"]) == (24, 0)
    assert report["new_images"] == 24 - 2 * committed


@pytest.mark.ray
def test_a_prefect_server_ends_with_its_driver() -> None:
    server = prefect_server.start_server()
    prefect_server.wait_ready(server)
    assert server.process.stdin is not None
    server.process.stdin.close()  # what the kernel does when a driver is killed
    assert server.process.wait(30) == 0
    prefect_server.stop_server(server)
    assert not server.log.exists()


def test_a_server_that_cannot_start_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    server = prefect_server.start_server({**os.environ, "PREFECT_HOME": str(tmp_path / "file")})
    try:
        with pytest.raises(prefect_server.PrefectServerError, match="PREFECT_HOME"):
            prefect_server.wait_ready(server, timeout_s=60)
    finally:
        prefect_server.stop_server(server)


def test_a_named_server_that_is_not_there_is_named_in_the_error() -> None:
    with pytest.raises(prefect_server.PrefectServerError, match=r"127.0.0.1:9/api.*PREFECT_API_URL"):
        prefect_server.check_answers("http://127.0.0.1:9/api")
