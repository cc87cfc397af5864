"""A driver on a machine that is no node of the cluster: what `HOST:PORT` says there, and work by `ray://`.

Head and driver are in network namespaces of their own with a wire between; all is gone with the test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskmill.storage.dataset.generations import latest
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.runs.test_generate import ENTRY, QUICK
from tests.flows.services.ray.namespaces import Machine, machines

pytestmark = [pytest.mark.ray, pytest.mark.drill]

TOKEN = "5" * 64


@dataclass
class Elsewhere:
    """A machine beside the head's."""

    head: Machine
    own: Machine
    folder: Path
    weights: Path

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.folder / "prefect")
        return {**_environment(), "PREFECT_HOME": home, "PREFECT_API_URL": "", "OMP_NUM_THREADS": "1"}

    def words(self, address: str) -> list[str]:
        sets = [word for pair in (*QUICK, f"segmenter.weights={self.weights}") for word in ("--set", pair)]
        given = ["generate", "data", "--input", "photos", *sets, "--ray-address", address]
        return [sys.executable, "-P", "-c", ENTRY, *given]

    def generate(self, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.own.run(
            self.words(address),
            environment={**self.environment, **environment},
            cwd=self.folder,
            timeout_s=200,
        )


def _environment() -> dict[str, str]:
    """Ray as the head runs it: all addresses of its namespace, with a token of the test's own."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_"))}
    return {**found, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, nano_weights: Path) -> Iterator[Elsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    write_pictures(folder / "photos", 4)
    with machines(2) as (head, own):
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
        words += [f"--node-ip-address={head.address}", "--include-dashboard=false"]
        words += ["--object-store-memory=83886080"]
        (folder / "head").mkdir()  # its own folder: paths that only the driver's gives must not be needed
        log = folder / "head.log"
        with head.running(words, environment=_environment(), cwd=folder / "head", log=log) as process:
            found = Elsewhere(head, own, folder, nano_weights)
            _until(lambda: process.poll() is None and _answers(found), 120, log)
            yield found


def _answers(found: Elsewhere) -> bool:
    code = f"import socket; socket.create_connection(({found.head.address!r}, 10001), 2)"
    words = ["ip", "netns", "exec", found.own.name, sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _until(happens: Callable[[], bool], timeout_s: float, log: Path) -> None:
    deadline = time.monotonic() + timeout_s
    while not happens():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("address", "environment", "told"),
    [
        ("{head}:6379", {}, "this machine is no node of that Ray cluster (its nodes: {head})"),
        ("{head}:6379", {}, "--ray-address ray://{head}:10001"),
        ("{head}:6379", {"RAY_AUTH_TOKEN": "6" * 64}, "not to this machine's token"),
        ("ray://{head}:10001", {"RAY_AUTH_TOKEN": "6" * 64}, "not to this machine's token"),
        ("{head}:6379", {"RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}, "not to this machine's token"),
        ("ray://{head}:10001", {"RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}, "not to this machine's token"),
        ("ray://{head}:6379", {}, "is no client server of Ray"),
        ("{head}:10001", {}, "use --ray-address ray://{head}:10001"),
        ("{head}:6380", {}, "nothing answers at {head}:6380"),
    ],
)
def test_what_is_so_is_said_at_once(
    elsewhere: Elsewhere, address: str, environment: dict[str, str], told: str
) -> None:
    host = elsewhere.head.address
    began = time.monotonic()
    done = elsewhere.generate(address.format(head=host), **environment)
    assert done.returncode == 3, done.stderr
    assert told.format(head=host) in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 30  # Ray alone: 60 s


def test_a_run_by_rays_client_is_killed_and_goes_on(elsewhere: Elsewhere) -> None:
    address = f"ray://{elsewhere.head.address}:10001"
    log = elsewhere.folder / "killed.log"
    store = open_store(elsewhere.folder / "data")
    with elsewhere.own.running(
        elsewhere.words(address), environment=elsewhere.environment, cwd=elsewhere.folder, log=log
    ) as process:
        _until(lambda: process.poll() is not None or any(store.list("masks/")), 150, log)
        os.kill(process.pid, signal.SIGKILL)  # and by --kill-child all of its namespace

    done = elsewhere.generate(address)
    assert done.returncode == 0, done.stderr
    generation = latest(store)
    assert generation is not None and generation.number == 1
    assert "4" in done.stdout and "lost" not in done.stderr

    again = elsewhere.generate(address)
    assert again.returncode == 0 and "Nothing to do" in again.stdout, again.stderr
