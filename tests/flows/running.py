"""A real `maskmill up` of one test: Prefect server and worker, without Ray."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.secret import read_secret
from tests.flows.asking import ask, post
from tests.ports import free_port


@dataclass
class Up:
    """A running `maskmill up`, without Ray."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    home: Path
    url: str

    @property
    def api(self) -> PrefectApi:
        """Its server, with the secret that it keeps."""
        return PrefectApi(self.url, read_secret(self.home))

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return found

    def run(self, *words: str) -> str:
        """A command of maskmill's, which must succeed; what it printed."""
        code = "from maskmill.flows.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def start_run(self) -> str:
        (made,) = ask(self.api, "deployments")
        path = f"deployments/{made['id']}/create_flow_run"
        return str(post(self.api, path, {"state": {"type": "SCHEDULED"}})["id"])

    def followers(self, run: str) -> list[str]:
        return [str(found["id"]) for found in ask(self.api, "flow_runs") if found["id"] != run]

    def look(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"flow_runs/{run}")
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


@contextlib.contextmanager
def running_up(
    folder: Path, database: str | None = None, *, cwd: Path | None = None, ray_port: int = 0
) -> Iterator[Up]:
    """`maskmill up` until the block ends; nothing of it is left running, and no log tells a password.

    Args:
        folder: for its home and log.
        database: a database's URL; None is the SQLite of `up` itself.
        cwd: the folder it is typed in.
        ray_port: of Ray's head; 0 starts none.
    """
    port = free_port()
    environment = {**os.environ, "MASKMILL_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {"PREFECT_WORKER_QUERY_SECONDS": "1"}  # Prefect's own is 10: every run would wait for it
    environment |= {"MASKMILL_DATABASE": database} if database else {}
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        environment.pop(name, None)
    words = ["up", "--port", str(port), "--ray-port", str(ray_port)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from maskmill.flows.cli import main; main()", *words],
            env=environment,
            cwd=cwd,
            stdout=log,
            stderr=log,
        )
    found = Up(process, environment, folder / "home", f"http://127.0.0.1:{port}/api")
    try:
        until(lambda: found.state()["ready"], "up is up")
        yield found
    finally:
        children = found.state()["children"] if (found.home / "up.json").exists() else {}
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, (folder / "up.log").read_text()
        assert not any(Path(f"/proc/{pid}").exists() for pid in children.values()), "nothing is left running"
        told = [*(found.home / "logs").iterdir(), folder / "up.log"]
        hidden = [str(read_secret(found.home)).partition(":")[2]]
        hidden += [database.split(":")[2].split("@")[0]] if database else []
        assert not any(secret in path.read_text(errors="replace") for path in told for secret in hidden)
