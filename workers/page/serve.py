"""The server process: a port of loopback, a new token, uvicorn until it is told to stop.

A dataset's own port is the same at each start and wherever it is moved to: what a browser keeps for a page
(a name, labels, work that a server could not save) it keeps by host and port.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from maskmill.storage.errors import InputError
from maskmill.workers.page.app import make_app

if TYPE_CHECKING:
    from maskmill.workers.page.session import Session

HOST = "127.0.0.1"
TOKEN_BYTES = 24
OWN_PORTS = range(20_000, 30_000)  # of datasets: below those that systems hand out


class Server:
    """The page's server, listening from the start; `run` answers until `stop`.

    Args:
        session: what is browsed.
        port: of loopback; 0 takes a free one, None the dataset's own, or a free one where that is taken.

    Raises:
        InputError: the port is taken.
    """

    def __init__(self, session: Session, *, port: int | None = 0) -> None:
        self._session = session
        self._socket = _own_socket(session.identity) if port is None else _bound(port)
        self._port: int = self._socket.getsockname()[1]
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        app = make_app(session, token=self._token, port=self._port)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        self._uvicorn = uvicorn.Server(settings)

    @property
    def address(self) -> str:
        """Of the page, token included: whoever has it may look and review."""
        return f"http://{HOST}:{self._port}/{self._token}/"

    def run(self, started: Callable[[str], None] = lambda address: None) -> None:
        """Answers until Ctrl-C or `stop`.

        Args:
            started: told the address once it listens.
        """
        self._session.answers.warm()
        started(self.address)
        logging.getLogger("uvicorn.error").addFilter(_says_something)
        try:
            loop = self._uvicorn.config.get_loop_factory()  # imports: Ctrl-C meanwhile finds nothing begun
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(self._uvicorn.serve(sockets=[self._socket]))
        finally:
            self.close()
            self._session.close()

    def close(self) -> None:
        """Gives the port back, of a server that never ran too."""
        self._socket.close()

    def stop(self) -> None:
        """Ends `run`, from another thread."""
        self._uvicorn.should_exit = True


def own_port(identity: str) -> int:
    """The port that a dataset's page has wherever it is free."""
    return OWN_PORTS[int(identity, 16) % len(OWN_PORTS)]


def _own_socket(identity: str) -> socket.socket:
    try:
        return _bound(own_port(identity))
    except InputError:
        return _bound(0)


def _bound(port: int) -> socket.socket:
    """A socket at a port of loopback. Raises InputError where it is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen(128)  # until then another may bind the same port
    except OSError as exc:
        made.close()
        raise InputError(
            f"port {port} of {HOST} cannot be used ({exc.strerror}); --port 0 takes a free one"
        ) from exc
    return made


def _says_something(record: logging.LogRecord) -> bool:
    """A browser keeps its connection open, idle, to the end: that is no error."""
    return not record.getMessage().startswith("Cancel 0 running task(s)")
