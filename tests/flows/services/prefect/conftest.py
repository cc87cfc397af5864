"""One real Prefect server for the tests that register deployments; those that stop theirs start their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.flows.services.prefect import server as prefect_server
from maskmill.flows.services.prefect.api import PrefectApi
from tests.flows.asking import Run, ask


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def server(home: Path) -> Iterator[prefect_server.PrefectServer]:
    started = prefect_server.start_server({**os.environ, "PREFECT_HOME": str(home)})
    try:
        prefect_server.wait_ready(started)
        yield started
    finally:
        prefect_server.stop_server(started)


@pytest.fixture
def api(server: prefect_server.PrefectServer) -> PrefectApi:
    """The server's, without deployments of tests before."""
    found = PrefectApi(server.url, server.secret)
    for one in ask(found, "deployments"):
        found.send(f"deployments/{one['id']}", {}, method="DELETE")
    return found


@pytest.fixture
def run(server: prefect_server.PrefectServer, home: Path) -> Run:
    """A command of maskmill's that talks to the server."""
    environment = {**os.environ, "PREFECT_HOME": str(home), "MASKMILL_HOME": str(home)}
    environment |= {"PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": server.secret}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from maskmill.flows.cli import main; main()", *words],
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
