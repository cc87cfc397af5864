"""The page "Run on a cluster", walked command by command: a head, two workers, and a driver that is no node.

The commands are the page's own, taken from its code blocks; only the places differ: HEAD is an address, the
bucket a folder that all see, and the model and grid are small. On the way the driver's wire is out for a
while, and a worker's machine dies. It needs root (network namespaces); anyone may run it:

    pytest tests/flows/services/ray/test_cluster_page.py
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.dataset.generations import latest
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.runs.test_generate import QUICK
from tests.flows.services.ray.namespaces import Machine, machines, unplugged

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1500)]

PAGE = Path(__file__).parents[4] / "docs" / "cluster.md"
TOKEN = "5" * 64
BLOCK = re.compile(r"^```\n# (on the head|on each worker|where you work)\n(.*?)^```", re.M | re.S)
PROGRAMS = {
    "ray": [sys.executable, "-m", "ray.scripts.scripts"],
    "maskmill": [sys.executable, "-P", "-c", "from maskmill.flows.cli import main; main()"],
}


@dataclass
class Steps:
    """What the page has one type at a place: variables, then commands."""

    variables: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)


@dataclass
class Cluster:
    """The machines, and what runs on them."""

    head: Machine
    driver: Machine
    folder: Path
    workers: list[subprocess.Popen[bytes]]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "PREFECT_", "MASKMILL_"))
        }
        own = {"RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        return {**kept, **own, "PREFECT_HOME": str(self.folder / "prefect"), **more}

    def doctor(self, *words: str, **more: str) -> dict[str, dict[str, str]]:
        asked = [*PROGRAMS["maskmill"], "doctor", "--json", "--no-speeds", *words]
        done = self.driver.run(asked, environment=self.environment(**more), cwd=self.folder, timeout_s=400)
        assert done.stdout, done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)["findings"]}


def steps() -> dict[str, Steps]:
    found: dict[str, Steps] = {}
    for place, text in BLOCK.findall(PAGE.read_text()):
        made = found.setdefault(place, Steps())
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "export":
                made.variables |= dict(word.split("=", 1) for word in words[1:])
            else:
                made.commands.append(words)
    return found


def placed(words: list[str], head: Machine, folder: Path) -> list[str]:
    """A command of the page with this cluster's places in it, by the programs of this environment."""
    named = {"s3://bucket/dataset": folder / "data", "s3://bucket/photos": folder / "photos"}
    made = [str(named.get(word, word)).replace("HEAD", head.address) for word in words]
    return [*PROGRAMS[made[0]], *made[1:]]


def test_the_page_has_the_steps_that_are_walked() -> None:
    found = steps()
    assert [len(found[place].commands) for place in ("on the head", "on each worker", "where you work")] == [
        1,
        1,
        3,
    ]
    assert found["where you work"].variables["MASKMILL_RAY_ADDRESS"] == "ray://HEAD:10001"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    write_pictures(folder / "photos", 24)
    page = steps()
    with machines(4) as (head, first, second, driver), ExitStack() as running:
        found = Cluster(head, driver, folder, [])
        for place, machine in (("on the head", head), ("on each worker", first), ("on each worker", second)):
            (command,) = page[place].commands
            words = [*placed(command, head, folder), "--block", f"--node-ip-address={machine.address}"]
            words += ["--object-store-memory=83886080", *(["--num-cpus=1"] if machine != head else [])]
            words += ["--include-dashboard=false"] if machine == head else []
            log = folder / f"{machine.name}.log"
            joined = running.enter_context(
                machine.running(
                    words, environment=found.environment(**page[place].variables), cwd=folder, log=log
                )
            )
            if machine == head:
                _until(partial(_is_up, joined, found), 180, log)
            else:
                found.workers.append(joined)
        yield found


def _is_up(head: subprocess.Popen[bytes], found: Cluster) -> bool:
    return head.poll() is None and _answers(found)


def _answers(found: Cluster) -> bool:
    code = f"import socket; socket.create_connection(({found.head.address!r}, 10001), 2)"
    words = ["ip", "netns", "exec", found.driver.name, sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _until(happens: Callable[[], Any], timeout_s: float, log: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


def test_the_doctor_tells_a_node_from_none_and_a_token_from_another(cluster: Cluster) -> None:
    address = cluster.head.address
    outside = cluster.doctor("--ray-address", f"{address}:6379")["ray"]
    assert outside["state"] == "wrong" and "this machine is no node of that Ray cluster" in outside["says"]
    assert f"ray://{address}:10001" in outside["cure"]
    token = cluster.doctor("--ray-address", f"ray://{address}:10001", RAY_AUTH_TOKEN="6" * 64)["ray"]
    assert token["state"] == "wrong" and "copy the head's ~/.ray/auth_token here" in token["cure"]


def test_the_page_from_doctor_to_verify_with_a_wire_out_and_a_node_dead(
    cluster: Cluster, nano_weights: Path
) -> None:
    page = steps()["where you work"]
    variables = {name: value.replace("HEAD", cluster.head.address) for name, value in page.variables.items()}
    environment = cluster.environment(**variables)
    looking, generating, verifying = (
        placed(command, cluster.head, cluster.folder) for command in page.commands
    )
    deadline = time.monotonic() + 120
    while True:  # until both workers have joined
        told = cluster.driver.run(
            [*looking, "--json", "--no-speeds"], environment=environment, cwd=cluster.folder, timeout_s=400
        )
        found = {row["name"]: row for row in json.loads(told.stdout)["findings"]}
        if found["ray's nodes"]["says"].startswith("3 nodes with 2 CPUs"):
            break
        assert time.monotonic() < deadline, found["ray's nodes"]
    assert found["ray"]["state"] == found["ray's nodes"]["state"] == found["store"]["state"] == "fine"
    assert "as a client: this machine is no node" in found["ray"]["says"]

    recipe = generating.index("--recipe")
    sets = [
        word
        for pair in (*QUICK, "run.shard_size=2", f"segmenter.weights={nano_weights}")
        for word in ("--set", pair)
    ]
    command = [*generating[:recipe], *sets]
    log = cluster.folder / "generate.log"
    store = open_store(str(cluster.folder / "data"))
    with cluster.driver.running(command, environment=environment, cwd=cluster.folder, log=log) as process:
        _until(lambda: process.poll() is not None or any(store.list("masks/")), 300, log)
        with unplugged(cluster.driver):
            time.sleep(8)
        cluster.workers[0].send_signal(signal.SIGKILL)  # and with it all of that machine
        assert process.wait(600) == 0, log.read_text(errors="replace")[-3000:]
    generation = latest(store)
    assert generation is not None and generation.number == 1

    sound = cluster.driver.run(verifying, environment=environment, cwd=cluster.folder, timeout_s=200)
    assert sound.returncode == 0 and "24" in sound.stdout, sound.stdout + sound.stderr
