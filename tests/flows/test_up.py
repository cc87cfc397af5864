"""`maskmill up` with a real Prefect server and worker: what is killed is started again, nothing hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.config import load_config
from storage.generations import latest
from storage.objects import open_store
from storage.writer import writing
from tests.fakes import write_pictures
from tests.flows.asking import ask, post
from tests.flows.test_relabel import SETS, annotate
from tests.postgres import postgres

pytestmark = pytest.mark.ray


@dataclass
class Up:
    """A running `maskmill up`, without Ray."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    home: Path
    url: str

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return found

    def run(self, *words: str) -> None:
        code = "from flows.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start_run(self) -> str:
        (made,) = ask(self.url, "deployments")
        path = f"deployments/{made['id']}/create_flow_run"
        return str(post(self.url, path, {"state": {"type": "SCHEDULED"}})["id"])

    def followers(self, run: str) -> list[str]:
        return [str(found["id"]) for found in ask(self.url, "flow_runs") if found["id"] != run]

    def look(self, run: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/flow_runs/{run}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def until(happens: Callable[[], Any], what: str, timeout_s: float = 150.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if found := happens():
                return found
        except (urllib.error.URLError, OSError, ValueError):
            pass  # the server is starting again
        time.sleep(0.3)
    raise AssertionError(f"waited in vain: {what}")


def started_again(up: Up, name: str, before: int) -> bool:
    return bool(up.state()["children"].get(name, before) != before)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.drill)])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A database's URL; None is the SQLite of `up` itself."""
    if request.param == "sqlite":
        yield None
    else:
        with postgres() as url:
            yield url


@pytest.fixture
def up(tmp_path: Path, database: str | None) -> Iterator[Up]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASKMILL_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {"MASKMILL_DATABASE": database} if database else {}
    environment.pop("PREFECT_API_URL", None)
    words = ["up", "--port", str(port), "--ray-port", "0"]
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", *words],
            env=environment,
            stdout=log,
            stderr=log,
        )
    found = Up(process, environment, tmp_path / "home", f"http://127.0.0.1:{port}/api")
    try:
        until(lambda: found.state()["ready"], "up is up")
        yield found
    finally:
        children = found.state()["children"] if (found.home / "up.json").exists() else {}
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, (tmp_path / "up.log").read_text()
        assert not any(Path(f"/proc/{pid}").exists() for pid in children.values()), "nothing is left running"
        if database:
            secret = database.split(":")[2].split("@")[0]
            told = [*(found.home / "logs").iterdir(), tmp_path / "up.log"]
            assert not any(secret in path.read_text(errors="replace") for path in told)


def test_a_relabel_survives_the_death_of_its_process_of_the_worker_and_of_the_server(
    up: Up, database: str | None, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "inputs", 2)
    root = str(tmp_path / "data")
    annotate(root, [str(tmp_path / "inputs")], load_config("nano", sets=SETS))
    changed = [word for pair in (*SETS, "masks.predicted_iou=0.4") for word in ("--set", pair)]
    up.run("deploy", root, "--flow", "relabel", *changed)

    with writing(open_store(root), "test"):  # the run waits for us, and can be killed meanwhile
        run = up.start_run()
        until(
            lambda: up.look(run)["state_type"] == "RUNNING" and up.look(run)["infrastructure_pid"], "it runs"
        )
        time.sleep(2)
        host, _, pid = until(lambda: up.look(run)["infrastructure_pid"], "its process is noted").rpartition(
            ":"
        )
        assert host == socket.gethostname()
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
    until(lambda: up.followers(run), "another follows it")
    (second,) = up.followers(run)
    until(lambda: up.look(second)["state_type"] == "COMPLETED", "that ends")
    assert up.look(run)["state_type"] == "CRASHED"
    generation = latest(open_store(root))
    assert generation is not None and generation.number == 2 and generation.made_by == "relabel"

    for name in ("worker", "server"):
        before = up.state()["children"]
        os.kill(before[name], signal.SIGKILL)
        until(partial(started_again, up, name, before[name]), f"{name} again")
    last = until(up.start_run, "the server answers")
    until(lambda: up.look(last)["state_type"] == "COMPLETED", "a run with nothing to do")
    newest = latest(open_store(root))
    assert newest is not None and newest.number == 2
    assert (up.home / "prefect.db").exists() == (database is None)


@pytest.mark.drill
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_nothing_is_published_before_a_person_has_signed_off(up: Up, tmp_path: Path) -> None:
    write_pictures(tmp_path / "inputs", 2)
    root = str(tmp_path / "data")
    annotate(root, [str(tmp_path / "inputs")], load_config("nano", sets=SETS))
    changed = [word for pair in (*SETS, "masks.predicted_iou=0.4") for word in ("--set", pair)]
    up.run("deploy", root, "--flow", "relabel", "--sign-off", *changed)

    run = up.start_run()
    until(lambda: up.look(run)["state_type"] == "PAUSED", "it waits for a person")
    assert "maskmill-sign-off" in {found["key"] for found in ask(up.url, "artifacts")}
    before = latest(open_store(root))
    assert before is not None and before.number == 1
    post(up.url, f"flow_runs/{run}/resume", {"run_input": {"publish": True}})
    until(lambda: up.look(run)["state_type"] == "COMPLETED", "it is published")
    after = latest(open_store(root))
    assert after is not None and after.number == 2
