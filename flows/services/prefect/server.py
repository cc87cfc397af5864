"""A Prefect server for the length of one run, when the user has none.

Prefect can start such a server itself, but only once its client is imported (2 s), in the terminal's process
group (Ctrl-C would take it down before the run's end is recorded), and without an end when the driver is
killed. Here it starts first, as its own session, while Ray starts beside it; it inherits a socket that
already listens, so a first request simply waits; and it ends when its standard input closes, which happens
however the driver ends.

The run history lies where Prefect keeps it (PREFECT_HOME, by default ~/.prefect): `prefect server start`
shows it. A server of the user's own (PREFECT_API_URL, or a profile with one) is used instead of this.

It doesn't know about two first starts at one time on a new PREFECT_HOME: both would create its database.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from maskmill.flows.services.prefect.secret import guarded, new_secret
from maskmill.flows.services.surroundings import open_directly, open_url, proxies_in_force, settle

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 10.0

_QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
_SERVER = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PYTHONSAFEPATH": "1",  # it doesn't look for modules in the current folder
}


class PrefectServerError(RuntimeError):
    """The run's Prefect server didn't start; carries what it wrote."""


@dataclasses.dataclass(frozen=True)
class PrefectServer:
    """A starting or running server.

    Attributes:
        url: its API, for PREFECT_API_URL.
        secret: what it asks for, for PREFECT_API_AUTH_STRING; it ends with the server.
        process: the server; its standard input is its lifeline.
        log: what it wrote; removed by `stop_server`.
    """

    url: str
    secret: str = dataclasses.field(repr=False)
    process: subprocess.Popen[bytes]
    log: Path


def quiet_environment() -> None:
    """Turns Prefect's telemetry and console logs off, unless the user chose otherwise.

    What goes wrong is told once, by the command; the run's full log is in Prefect's history. Must run before
    prefect is first imported.
    """
    for name, value in {**_QUIET, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}.items():
        os.environ.setdefault(name, value)


def start_server(environment: Mapping[str, str] = os.environ) -> PrefectServer:
    """Starts a server and returns at once; `wait_ready` before the first use.

    Args:
        environment: of the server; PREFECT_HOME in it says where its history lies.
    """
    settle()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        listener.listen(64)
        site, secret = f"http://{HOST}:{listener.getsockname()[1]}", new_secret()
        handle, log = tempfile.mkstemp(prefix="maskmill-prefect-", suffix=".log")
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "maskmill.flows.services.prefect.server", str(listener.fileno())],
                env={**_QUIET, **environment, **_SERVER, **guarded(secret, site)},
                pass_fds=(listener.fileno(),),
                stdin=subprocess.PIPE,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
            )
        finally:
            os.close(handle)
    return PrefectServer(url=f"{site}/api", secret=secret, process=process, log=Path(log))


def wait_ready(server: PrefectServer, *, timeout_s: float = 120.0) -> None:
    """Waits until the server answers.

    Raises:
        PrefectServerError: it ended, answered with an error, or was silent for `timeout_s`.
    """
    try:
        with open_directly(f"{server.url}/health", timeout_s=timeout_s) as answer:
            answer.read()
    except (urllib.error.URLError, OSError) as exc:
        written = server.log.read_text(errors="replace")[-2000:] if server.log.exists() else ""
        raise PrefectServerError(
            f"the run's Prefect server did not start ({exc}); it wrote:\n{written.strip() or '(nothing)'}\n"
            "Cure: look at PREFECT_HOME (is it writable, is its disk full?), or start a server with "
            "`prefect server start` and set PREFECT_API_URL"
        ) from exc


def check_answers(url: str, *, timeout_s: float = 10.0) -> None:
    """Finds out whether the user's own server is there.

    Raises:
        PrefectServerError: nothing answers at `url`.
    """
    try:
        with open_url(f"{url}/health", timeout_s=timeout_s):
            return
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in, its client finds out
    except OSError as exc:
        through = proxies_in_force()
        by = f"; it was asked through the proxy of {through}: is its host in no_proxy?" if through else ""
        raise PrefectServerError(
            f"no Prefect server answers at {url} ({exc}){by}. Cure: start it, or unset PREFECT_API_URL (and "
            "`prefect profile use ephemeral`): then a server is started for the run"
        ) from exc


def stop_server(server: PrefectServer) -> None:
    """Ends the server in order, so that it writes what it has received; kills it after `STOP_TIMEOUT_S`."""
    server.process.terminate()
    try:
        server.process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    if server.process.stdin is not None:
        server.process.stdin.close()
    server.log.unlink(missing_ok=True)


def _end_with_driver() -> None:
    """Ends this process once the driver's end of standard input is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


def _serve(fd: int) -> None:
    threading.Thread(target=_end_with_driver, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
