"""compose.yaml brought up without containers: each service a process, in a network namespace of its own, with
compose's own command and environment; then a flow run that Prefect's worker carries out on Ray.

What stands for a container: an address that others find by the service's name, a home, the image's variables
(Dockerfile's ENV). What a container has and this hasn't: its file system (photographs lie at a path that all
share), its limits and its user. It needs root, Ceph and Postgres:

    pytest tests/infra/test_compose_run.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_pictures
from tests.flows.runs.test_generate import QUICK
from tests.flows.services.ray.namespaces import Machine, machines
from tests.infra.test_compose import COMPOSE, INFRA, made_environment
from tests.postgres import find_programs

pytestmark = [pytest.mark.s3, pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1200)]

SERVICES = ("postgres", "s3", "prefect", "ray", "worker")
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
PROGRAMS = {
    "python": [sys.executable],
    "prefect": [sys.executable, "-m", "prefect"],
    "ray": [sys.executable, "-m", "ray.scripts.scripts"],
    "maskmill": [sys.executable, "-P", "-c", "from maskmill.flows.cli import main; main()"],
}
AS_NAMED = 'mount --bind "$HOSTS" /etc/hosts && exec "$@"'


@dataclass
class Composed:
    """The services that run, each on a machine of its own."""

    folder: Path
    machines: dict[str, Machine]
    secrets: dict[str, str]

    def variables(self, service: str) -> dict[str, str]:
        """A service's environment: what compose gives it, on top of its image's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "PREFECT_", "MASKMILL_", "AWS_"))
        }
        home = self.folder / service
        home.mkdir(exist_ok=True)
        given = COMPOSE["services"][service]["environment"]
        filled = {name: VARIABLE.sub(self._filled, str(value)) for name, value in given.items()}
        own = {"HOME": str(home), "HOSTS": str(self.folder / "hosts"), "OMP_NUM_THREADS": "1"}
        return {**kept, **image_variables(), **filled, **own}

    def _filled(self, found: re.Match[str]) -> str:
        return self.secrets.get(found[1]) or str(found[2])

    def run(self, service: str, *words: str, timeout_s: float = 300) -> str:
        """`docker compose exec SERVICE WORDS`: what it printed."""
        done = self.machines[service].run(
            in_place(words), environment=self.variables(service), cwd=self.folder, timeout_s=timeout_s
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def processes(self, service: str) -> list[str]:
        """What runs on a service's machine now."""
        asked = ["ip", "netns", "pids", self.machines[service].name]
        pids = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        return [words for pid in pids if (words := words_of(pid))]


def words_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def image_variables() -> dict[str, str]:
    """The Dockerfile's ENV, but for its paths and bytecode."""
    text = (INFRA / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line[4:] for line in text.splitlines() if line.startswith("ENV ")]
    return dict(word.split("=", 1) for line in lines for word in line.split() if not word.startswith("PATH"))


def in_place(words: Sequence[str]) -> list[str]:
    """A command where services are found by their names."""
    return ["sh", "-c", AS_NAMED, "sh", *PROGRAMS.get(words[0], [words[0]]), *words[1:]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Postgres' user reaches too: it refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="compose-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def composed(folder: Path) -> Iterator[Composed]:
    """All services of compose.yaml, up in the order that it names."""
    if shutil.which("radosgw") is None or find_programs() is None:
        pytest.skip("Ceph or Postgres is not installed")
    secrets = {**made_environment(), "STORE_SIZE": "4G"}
    with machines(len(SERVICES)) as found, ExitStack() as running:
        up = Composed(folder, dict(zip(SERVICES, found, strict=True)), secrets)
        names = [f"{machine.address} {name}" for name, machine in up.machines.items()]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))

        def start(service: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
            return running.enter_context(
                up.machines[service].running(
                    in_place(words),
                    environment={**up.variables(service), **more},
                    cwd=folder,
                    log=folder / f"{service}.log",
                )
            )

        _start_stores(up, start)
        for service in ("prefect", "ray"):
            start(service, *COMPOSE["services"][service]["command"], *_small(service, up))
        for place in ("prefect:4200", "ray:10001"):
            _until(partial(_listens, up, place), place, folder)
        up.run("worker", *COMPOSE["services"]["bucket"]["command"], timeout_s=100)
        start("worker", *COMPOSE["services"]["worker"]["command"], PREFECT_WORKER_QUERY_SECONDS="1")
        yield up


def _start_stores(up: Composed, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Postgres as its image begins, and the S3 store by its image's own script."""
    programs = find_programs()
    assert programs is not None
    asked = up.variables("postgres")
    data = up.folder / "postgres" / "data"
    secret = up.folder / "postgres" / "password"
    secret.write_text(asked["POSTGRES_PASSWORD"])
    for path in (secret.parent, secret):
        shutil.chown(path, "postgres")
    made = ["-D", str(data), "-U", asked["POSTGRES_USER"], "-A", "scram-sha-256", f"--pwfile={secret}"]
    subprocess.run([programs / "initdb", *made], user="postgres", cwd="/", check=True, capture_output=True)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    words = [programs / "postgres", "-D", data, "-c", "listen_addresses=*", "-F", "-k", secret.parent]
    start("postgres", "setpriv", "--reuid=postgres", "--clear-groups", *map(str, words))
    _until(lambda: _listens(up, "postgres:5432"), "postgres", up.folder)
    where = f"postgresql://{asked['POSTGRES_USER']}:{asked['POSTGRES_PASSWORD']}@postgres/postgres"
    code = (
        "import asyncio, asyncpg\n"
        "async def make():\n"
        f"    connection = await asyncpg.connect({where!r})\n"
        f"    await connection.execute('CREATE DATABASE {asked['POSTGRES_DB']}')\n"
        "asyncio.run(make())"
    )
    up.run("prefect", "python", "-c", code)

    place = {"STORE": str(up.folder / "s3" / "store")}
    start("s3", "sh", str(INFRA / "store" / "start.sh"), **place)
    _until(lambda: "ready: S3" in (up.folder / "s3.log").read_text(errors="replace"), "s3", up.folder)


def _small(service: str, up: Composed) -> list[str]:
    """Of Ray: an address in place of the container's only one, and less of this machine than all."""
    if service != "ray":
        return []
    machine = up.machines["ray"]
    return [f"--node-ip-address={machine.address}", "--num-cpus=2", "--object-store-memory=83886080"]


def _listens(up: Composed, place: str) -> bool:
    host, port = place.split(":")
    code = f"import socket; socket.create_connection(({host!r}, {port}), 2)"
    done = up.machines["worker"].run(
        in_place(["python", "-c", code]), environment=up.variables("worker"), cwd=up.folder, timeout_s=60
    )
    return done.returncode == 0


def _until(happens: Callable[[], Any], what: str, folder: Path, timeout_s: float = 240) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited in vain: {what}\n{_logs(folder)}")


def _logs(folder: Path) -> str:
    """The end of what each service wrote."""
    found = {path.name: path.read_text(errors="replace")[-2500:] for path in folder.glob("*.log")}
    return "\n".join(f"--- {name}\n{text}" for name, text in found.items())


def test_a_flow_run_of_prefects_worker_reaches_ray_and_the_store(composed: Composed) -> None:
    photos = composed.folder / "photos"
    write_pictures(photos, 6)
    dataset = "s3://maskmill/dataset"
    sets = [word for pair in QUICK for word in ("--set", pair)]
    deployed = composed.run("worker", "maskmill", "deploy", dataset, "--input", str(photos), *sets, "--json")
    (registered,) = json.loads(deployed)["registered"]
    composed.run("worker", "prefect", "deployment", "run", registered)

    seen: set[str] = set()

    def ended() -> str | None:
        for service in ("ray", "worker"):
            for words in composed.processes(service):
                seen.update({service} if "ray::ShardWorker" in words else ())
        state = _state_of_the_run(composed)
        return state if state in ("COMPLETED", "FAILED", "CRASHED") else None

    assert _until(ended, "the flow run", composed.folder, 500) == "COMPLETED", _logs(composed.folder)
    assert seen == {"ray"}, "the shards' workers ran on Ray's machine, and on no other"
    composed.run("worker", "maskmill", "verify", dataset)
    told = json.loads(composed.run("worker", "maskmill", "status", dataset, "--json"))
    assert told["generations"] == [1] and told["generation"]["totals"]["annotated"] == 6, told


def _state_of_the_run(composed: Composed) -> str:
    code = (
        "import os\n"
        "from maskmill.flows.services.prefect.api import PrefectApi\n"
        "api = PrefectApi(os.environ['PREFECT_API_URL'], os.environ['PREFECT_API_AUTH_STRING'])\n"
        "print(*[run['state_type'] for run in api.send('flow_runs/filter', {})])"
    )
    return composed.run("worker", "python", "-c", code).strip()
