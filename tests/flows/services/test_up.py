"""`maskmill up` with a real Prefect server and worker: what is killed is started again, nothing hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from maskmill.flows.config import load_config
from maskmill.storage.dataset.generations import latest
from maskmill.storage.drivers.one_writer import writing
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.asking import ask, post
from tests.flows.running import Up, running_up, until
from tests.flows.runs.test_relabel import SETS, annotate
from tests.postgres import postgres

pytestmark = pytest.mark.ray


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
    with running_up(tmp_path, database) as found:
        yield found


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
    assert "maskmill-sign-off" in {found["key"] for found in ask(up.api, "artifacts")}
    before = latest(open_store(root))
    assert before is not None and before.number == 1
    post(up.api, f"flow_runs/{run}/resume", {"run_input": {"publish": True}})
    until(lambda: up.look(run)["state_type"] == "COMPLETED", "it is published")
    after = latest(open_store(root))
    assert after is not None and after.number == 2
