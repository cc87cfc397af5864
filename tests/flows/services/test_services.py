"""`up`'s parts without its services: what is refused, what is found, what is set right."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from maskmill.flows.config import ConfigError
from maskmill.flows.services import services
from maskmill.flows.services import state as up_state
from maskmill.flows.services.prefect import lost_runs as zombies
from maskmill.flows.services.prefect import processes
from maskmill.flows.services.prefect import secret as api_secret
from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.deploy import DeployError, Deployment, absolute, dataset_name, parameters


def test_another_address_needs_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    with pytest.raises(ConfigError, match="would let anyone on the network start runs"):
        services.UpSettings(home=tmp_path, host="0.0.0.0")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "user:password")
    settings = services.UpSettings(home=tmp_path, host="0.0.0.0")
    assert settings.api_url == "http://127.0.0.1:4200/api"
    assert api_secret.keep_secret(tmp_path) == "user:password", "clients on this machine find it"


def test_a_database_is_postgres_and_its_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        services.UpSettings(home=tmp_path, database="mysql://me:hunter2@host/db")
    assert "hunter2" not in str(refused.value)
    url = "postgresql+asyncpg://me:hunter2@host/db"
    settings = services.UpSettings(home=tmp_path, database=url, ray_port=0)
    commands = services._commands(settings, "me:s3cret")
    assert set(commands) == {"server", "worker"}
    assert commands["server"][1]["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == url
    for secret in ("hunter2", "s3cret"):
        assert all(secret not in " ".join(words) for words, _ in commands.values()), "not on a command line"


def test_running_services_are_found_and_dead_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "MASKMILL_RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert up_state.running() is None
    assert up_state.ray_address(None) is None
    state = {
        "pid": os.getpid(),
        "api_url": "http://127.0.0.1:1/api",
        "ray_address": "127.0.0.1:2",
        "pool": "maskmill",
        "started_s": 0.0,
        "children": {},
        "ready": True,
    }
    (tmp_path / "up.json").write_text(json.dumps(state))
    assert up_state.ray_address(None) == "127.0.0.1:2"
    assert up_state.ray_address("mine:6379") == "mine:6379"
    up_state.use_server()
    assert os.environ.pop("PREFECT_API_URL") == "http://127.0.0.1:1/api"
    (tmp_path / "up.json").write_text(json.dumps({**state, "ready": False}))
    assert up_state.ray_address(None) is None, "services that start are not used yet"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "up.json").write_text(json.dumps({**state, "pid": ended.pid}))
    assert up_state.running() is None
    assert services.stop(tmp_path) is False


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = services.UpSettings(home=tmp_path, port=taken.getsockname()[1], ray_port=0)
        with pytest.raises(services.ServicesError, match="is taken by another program"):
            services.supervise(settings, print, ready=lambda: None)


def test_a_process_is_gone_only_if_it_was_one_of_this_machine() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    assert processes.is_gone(f"{host}:{ended.pid}")
    assert not processes.is_gone(processes.own_process())
    for unknown in (None, "", "elsewhere:1", f"{host}:", "cluster:job:abc"):
        assert not processes.is_gone(unknown)


class FakeServer(BaseHTTPRequestHandler):
    """Prefect's API as far as a sweep asks."""

    runs: ClassVar[list[dict[str, Any]]] = []
    states: ClassVar[dict[str, dict[str, Any]]] = {}
    auth: ClassVar[list[str | None]] = []
    freed: ClassVar[list[tuple[str, str]]] = []
    followers: ClassVar[dict[str, dict[str, Any]]] = {}

    def do_GET(self) -> None:
        asked = self.path.startswith("/api/csrf-token?client=")
        self._answer({"token": "t"} if asked else {})

    def do_POST(self) -> None:
        assert self.headers["Prefect-Csrf-Token"] == "t"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.auth.append(self.headers["Authorization"])
        if self.path == "/api/flow_runs/filter":
            answer: Any = self.runs
        elif self.path == "/api/deployments/d/create_flow_run":
            self.followers[body["idempotency_key"].removeprefix("after-")] = body
            answer = {}
        else:
            self.states[self.path.split("/")[3]] = body
            answer = {"status": "ACCEPT"}
        self._answer(answer)

    def _answer(self, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.freed.append((self.path.split("/")[3], body["infrastructure_pid"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_lost_runs_of_deployments_start_again_others_are_marked_and_live_ones_left() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = f"{socket.gethostname()}:{ended.pid}"
    common = {"state_type": "RUNNING", "tags": ["mine"], "parameters": {"a": 1}, "infrastructure_pid": gone}
    crashed, now = {**common, "state_type": "CRASHED"}, datetime.datetime.now(datetime.UTC)
    FakeServer.runs[:] = [
        {**common, "id": "nightly", "name": "nightly", "deployment_id": "d"},
        {**common, "id": "often", "name": "often", "deployment_id": "d", "tags": ["maskmill-starts:3"]},
        {**common, "id": "typed", "name": "typed", "deployment_id": None},
        {**common, "id": "alive", "name": "alive", "infrastructure_pid": processes.own_process()},
        {**crashed, "id": "fresh", "name": "fresh", "deployment_id": "d", "end_time": now.isoformat()},
        {**crashed, "id": "old", "name": "old", "deployment_id": "d", "end_time": "2025-01-01T00:00:00Z"},
        {**common, "id": "far", "name": "far", "infrastructure_pid": "elsewhere:1"},
    ]
    FakeServer.states.clear()
    FakeServer.followers.clear()
    FakeServer.auth.clear()
    server = HTTPServer(("127.0.0.1", 0), FakeServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/api"
        said = list(zombies.sweep(PrefectApi(url, "user:password")))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    kinds = {run: body["state"]["type"] for run, body in FakeServer.states.items()}
    assert kinds == dict.fromkeys(("nightly", "often", "typed"), "CRASHED"), "fresh has crashed already"
    assert set(FakeServer.followers) == {"nightly", "fresh"}
    assert FakeServer.followers["nightly"]["tags"] == ["mine", "maskmill-starts:2"]
    assert FakeServer.followers["nightly"]["parameters"] == {"a": 1}
    assert FakeServer.freed == [(run, "") for run in ("nightly", "often", "typed", "fresh")]
    assert len(said) == 4 and "started again" in said[0]
    assert set(FakeServer.auth) == {"Basic dXNlcjpwYXNzd29yZA=="}
    assert list(zombies.sweep(PrefectApi(url))) == [], "a server that is away is asked again later"


def test_parameters_say_what_a_flow_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeployError, match="name them with --input"):
        parameters("generate", "data", [], None)
    relabel = parameters("relabel", "data", [], None, sign_off=True)
    assert relabel == {"dataset": f"{tmp_path}/data", "wait_s": 6 * 3600.0, "sign_off": True}
    assert absolute("s3://bucket/x") == "s3://bucket/x"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flow": "dance"}, "use one of generate, relabel"),
        ({"cron": "every night"}, "use five fields"),
        ({"timezone": "Mars/Base"}, "Europe/Berlin"),
        ({"pool_type": "docker"}, "use one of process, kubernetes"),
        ({"pool_type": "kubernetes"}, "name it with --image"),
        ({"sign_off": True}, "--sign-off is for relabel"),
        ({"name": "a/b"}, "use letters, digits"),
    ],
)
def test_deployments_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    whole = {"flow": "generate", "name": "x", "parameters": {"dataset": "/d"}, "pool": "p", **fields}
    with pytest.raises(DeployError, match=message):
        Deployment(**whole)


def test_a_name_tells_datasets_apart() -> None:
    roots = ["/a/data", "/b/data", "s3://bucket/data", "/a/übung 1", "s3://bucket", "/"]
    names = [dataset_name(root) for root in roots]
    assert len(set(names)) == len(roots)
    assert names[0].startswith("data-") and names[3].startswith("bung-1-")
    assert all(not set(name) & set("/%&<> ") for name in names)
    assert dataset_name(absolute("s3://bucket/data/")) == names[2]
    plain = Deployment(flow="relabel", name="", parameters={"dataset": "/a/data"}, pool="p")
    assert plain.full_name == names[0]
    assert Deployment(**{**vars(plain), "name": "weekly"}).full_name == f"{names[0]}-weekly"
