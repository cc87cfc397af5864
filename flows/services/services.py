"""The services of one machine: Prefect's server and worker and a Ray head, started, watched and ended
together.

    server   Prefect's API and pages on the loopback address; SQLite below the home, or a Postgres by its URL
    worker   runs deployments, each as a process of its own
    ray      a head that the shards' workers start on

`maskmill up` runs `supervise`: a service that dies is started again; one that keeps dying ends them all.
What runs is written to a state file, so that `generate` and `relabel` find it by themselves, and the next
`up` ends what a killed one left behind. Logs lie in the home.

Everything listens on 127.0.0.1; the server may be told another address, but then only with a password that
the user knows (PREFECT_SERVER_API_AUTH_STRING="user:password"). On this machine too, other users and pages in
a browser reach the port: the server asks for a secret (api_secret.py).

It doesn't know: other machines. Use Kubernetes (infra/) or `ray start` and `prefect server start` there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from maskmill.flows.config import ConfigError
from maskmill.flows.services.prefect import secret as api_secret
from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.lost_runs import sweep
from maskmill.flows.services.prefect.pools import POOL, POOL_NAME, RUN_ENVIRONMENT
from maskmill.flows.services.service_process import STOP_TIMEOUT_S, Child
from maskmill.flows.services.state import Running, read_state, running, state_path
from maskmill.flows.services.surroundings import keep_token, open_directly
from maskmill.storage.drivers.lease import process_lives
from maskmill.storage.secret_words import blank_secrets

HOST = "127.0.0.1"
READY_TIMEOUT_S = 180.0
SWEEP_EVERY_S = 15.0
OBJECT_STORE_BYTES = 128 * 2**20
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's way to listen on the loopback address alone
    "PYTHONSAFEPATH": "1",  # none looks for modules in the folder that `up` was typed in
}


class ServicesError(RuntimeError):
    """A service did not start or keeps dying: says which, and what it wrote."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpSettings:
    """What `up` starts.

    Args:
        home: folder of databases, logs and the state file.
        host: the address the server listens on.
        port: of the server.
        ray_port: of Ray's head; 0 starts no Ray.
        database: a Postgres URL, postgresql+asyncpg://user:password@host/name; None is SQLite in the home.
        pool: the work pool's name.
        num_cpus: that Ray should believe in; None is what the machine has.
        worker: whether to start Prefect's worker.
    """

    home: Path
    host: str = HOST
    port: int = 4200
    ray_port: int = 6379
    database: str | None = None
    pool: str = POOL
    num_cpus: int | None = None
    worker: bool = True

    def __post_init__(self) -> None:
        if not _is_loopback(self.host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
            raise ConfigError(
                f"--host {self.host} would let anyone on the network start runs: set first "
                'PREFECT_SERVER_API_AUTH_STRING="user:password", and PREFECT_API_AUTH_STRING for clients'
            )
        try:
            socket.getaddrinfo(self.host or "nowhere.invalid", self.port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise ConfigError(f"--host {self.host!r} is no address of this machine ({exc})") from exc
        if not POOL_NAME.fullmatch(self.pool):
            raise ConfigError(f"--pool {self.pool!r}: use letters, digits, spaces and . _ -")
        if self.database is not None and not self.database.startswith("postgresql+asyncpg://"):
            raise ConfigError(
                f"--database {blank_secrets(self.database)}: use postgresql+asyncpg://user:password@host/name"
            )

    @property
    def api_url(self) -> str:
        """Where clients on this machine find the API."""
        host = HOST if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{host}:{self.port}/api"

    @property
    def origins(self) -> str:
        """Where the server's own pages come from, commas between them."""
        names = dict.fromkeys((self.api_url.removesuffix("/api"), f"http://localhost:{self.port}"))
        return ",".join(names)


def supervise(settings: UpSettings, tell: Callable[[str], None], *, ready: Callable[[], None]) -> None:
    """Starts the services and keeps them running until SIGTERM, SIGINT or a service that keeps dying.

    Args:
        settings: what to start.
        tell: gets lines for people.
        ready: called once, when all answer.

    Raises:
        ServicesError: a port is taken, services run already, or one does not start or keeps dying.
        OSError: the home cannot be written.
    """
    _check_free(settings)
    _end_leftovers(settings.home, tell)
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    secret = api_secret.keep_secret(settings.home)
    children = {name: Child(name, *spec, settings.home) for name, spec in _commands(settings, secret).items()}
    try:
        with _stoppable() as stopped:
            _start_all(settings, secret, children, tell, stopped)
            ready()
            _watch(settings, secret, children, tell, stopped)
    finally:
        for name in ("worker", "ray", "server"):  # the server last: the others tell it how they ended
            if name in children:
                children[name].stop()
        state_path(settings.home).unlink(missing_ok=True)


def stop(folder: Path | None = None) -> bool:
    """Ends the services from another process, in order. False: none run."""
    found = running(folder)
    if found is None:
        return False
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_TIMEOUT_S
    while process_lives(found.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    return True


def _commands(settings: UpSettings, secret: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Command line and environment of each service."""
    python = [sys.executable, "-m"]
    client = client_environment(settings, secret)
    database = settings.database or f"sqlite+aiosqlite:///{settings.home}/prefect.db"
    server = {
        **QUIET,
        **api_secret.guarded(secret, settings.origins),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # it calls an analytics host from the user's browser
        "PREFECT_SERVER_UI_API_URL": "/api",  # where the page came from: port 4200 of this machine otherwise
    }
    address = ["--host", settings.host, "--port", str(settings.port)]
    found = {"server": ([*python, "prefect", "server", "start", *address], server)}
    if settings.worker:
        words = ["worker", "start", "--pool", settings.pool, "--type", "process", "--name", _worker_name()]
        found["worker"] = ([*python, "prefect", *words], client)
    if settings.ray_port:
        words = ["start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"]
        words += [f"--node-ip-address={HOST}", f"--port={settings.ray_port}"]
        words += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        words += [f"--num-cpus={settings.num_cpus}"] if settings.num_cpus is not None else []
        found["ray"] = ([*python, "ray.scripts.scripts", *words], QUIET)
    return found


def client_environment(settings: UpSettings, secret: str) -> dict[str, str]:
    """What a client of these services needs in its environment."""
    return {
        **QUIET,
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": settings.api_url,
        **RUN_ENVIRONMENT,
        "PREFECT_API_AUTH_STRING": secret,
        **({"MASKMILL_RAY_ADDRESS": f"{HOST}:{settings.ray_port}"} if settings.ray_port else {}),
    }


def _start_all(
    settings: UpSettings,
    secret: str,
    children: Mapping[str, Child],
    tell: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Server and Ray side by side; the worker once the server answers and has its pool."""
    if "ray" in children:
        _make_ray_token()
        children["ray"].start()
    children["server"].start()
    _write_state(settings, children)
    tell("starting Prefect's server" + (" and Ray" if "ray" in children else ""))
    _wait(lambda: _answers(settings.api_url), children, "server", stopped)
    _setup(settings, secret, tell)
    if "worker" in children:
        children["worker"].start()
    if "ray" in children:
        _wait(lambda: _listens(HOST, settings.ray_port), children, "ray", stopped)
    _write_state(settings, children, ready=True)


def _watch(
    settings: UpSettings,
    secret: str,
    children: Mapping[str, Child],
    tell: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    """Starts again what dies, and sets right what killed runs left behind, until stopped."""
    swept = 0.0
    while not stopped():
        time.sleep(0.5)
        for child in children.values():
            code = child.died()
            if code is not None:
                tell(f"{child.name} ended with code {code}; starting it again")
                if child.hopeless:
                    raise ServicesError(f"{child.name} keeps dying; it wrote:\n{child.last_words()}")
            if child.process is None and time.monotonic() >= child.not_before_s:
                child.start()
                _write_state(settings, children, ready=True)
        if time.monotonic() - swept > SWEEP_EVERY_S and _answers(settings.api_url):
            swept = time.monotonic()
            _sweep(settings, secret, tell)


def _setup(settings: UpSettings, secret: str, tell: Callable[[str], None]) -> None:
    """Pool, automation and what earlier runs left, by a process of its own: this one stays light."""
    words = [sys.executable, "-m", "maskmill.flows.services.prefect.lost_runs", "setup", settings.pool]
    environment = {**os.environ, **client_environment(settings, secret)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise ServicesError(f"the work pool could not be made: {blank_secrets(done.stderr[-1500:])}")
    for line in done.stdout.splitlines():
        tell(line)


def _sweep(settings: UpSettings, secret: str, tell: Callable[[str], None]) -> None:
    """Runs whose process on this machine is gone; see zombies.py."""
    for line in sweep(PrefectApi(settings.api_url, secret)):
        tell(line)


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for the end instead of ending the process at once."""
    asked = False

    def ask(*_: object) -> None:
        """The handler of both signals."""
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(
    answers: Callable[[], bool], children: Mapping[str, Child], name: str, stopped: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not answers():
        if stopped():
            raise KeyboardInterrupt
        process = children[name].process
        if process is None or process.poll() is not None or time.monotonic() > deadline:
            raise ServicesError(f"{name} did not start; it wrote:\n{children[name].last_words()}")
        time.sleep(0.2)


def _check_free(settings: UpSettings) -> None:
    now = running(settings.home)
    if now is not None:
        raise ServicesError(
            f"services run already (process {now.pid}, {now.api_url}): `maskmill up --stop` ends them"
        )
    for name, port in (("--port", settings.port), ("--ray-port", settings.ray_port)):
        if port and _listens(HOST, port):
            raise ServicesError(f"port {port} is taken by another program: choose another with {name}")


def _end_leftovers(folder: Path, tell: Callable[[str], None]) -> None:
    """Ends the services that a killed `up` left running."""
    left = read_state(folder)
    for name, pid in (left.children if left is not None else {}).items():
        if _is_ours(pid):
            tell(f"ending {name} (process {pid}) of a run of `up` that was killed")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
                deadline = time.monotonic() + STOP_TIMEOUT_S
                while process_lives(pid) and time.monotonic() < deadline:
                    time.sleep(0.2)
                os.killpg(pid, signal.SIGKILL)
    state_path(folder).unlink(missing_ok=True)


def _is_ours(pid: int) -> bool:
    """Whether a process is one of the services' own: numbers are given out again after a restart."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word in (b"prefect", b"ray.scripts.scripts") for word in words)


def _make_ray_token() -> None:
    """Ray's own place for the token that every client of the cluster must have."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    keep_token(Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")))


def _answers(api_url: str) -> bool:
    try:
        with open_directly(f"{api_url}/health", timeout_s=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _listens(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _worker_name() -> str:
    return f"maskmill-{socket.gethostname()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_state(settings: UpSettings, children: Mapping[str, Child], *, ready: bool = False) -> None:
    state = Running(
        pid=os.getpid(),
        api_url=settings.api_url,
        ray_address=f"{HOST}:{settings.ray_port}" if settings.ray_port else None,
        pool=settings.pool,
        started_s=round(time.time(), 3),
        children={name: child.process.pid for name, child in children.items() if child.process is not None},
        ready=ready,
    )
    path = state_path(settings.home)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(dataclasses.asdict(state), sort_keys=True) + "\n")
    unfinished.replace(path)
