"""The server process: a free port of loopback, a new token, uvicorn until it is told to stop."""

from __future__ import annotations

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


class Server:
    """The page's server, listening from the start; `run` answers until `stop`.

    Args:
        session: what is browsed.
        port: of loopback; 0 takes a free one.

    Raises:
        InputError: the port is taken.
    """

    def __init__(self, session: Session, *, port: int = 0) -> None:
        self._session = session
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as exc:
            self._socket.close()
            raise InputError(
                f"port {port} of {HOST} cannot be used ({exc.strerror}); --port 0 takes a free one"
            ) from exc
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
        self._socket.listen(128)
        self._session.answers.warm()
        started(self.address)
        logging.getLogger("uvicorn.error").addFilter(_says_something)
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._session.close()

    def stop(self) -> None:
        """Ends `run`, from another thread."""
        self._uvicorn.should_exit = True


def _says_something(record: logging.LogRecord) -> bool:
    """A browser keeps its connection open, idle, to the end: that is no error."""
    return not record.getMessage().startswith("Cancel 0 running task(s)")
