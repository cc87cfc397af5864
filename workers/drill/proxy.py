"""A faulty way to an S3 store: an HTTP proxy on loopback that relays requests as they were signed.

    http_500        the store fails; every other time it has done the work first, unseen
    http_503        it asks to slow down
    slow            the answer takes some seconds
    cut             the connection breaks: without an answer, or every other time in the midst of it
    torn_upload     half of a body reaches the store, then the connection breaks
    full_disk       507 on a write

What it doesn't know: streams. A body is held whole, so objects should be small.
"""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from maskmill.workers.drill.disk import FULL_DISK
from maskmill.workers.drill.orders import Order, Orders

HTTP_500, HTTP_503 = "http_500", "http_503"
SLOW, CUT, TORN_UPLOAD = "slow", "cut", "torn_upload"
KINDS = frozenset({HTTP_500, HTTP_503, SLOW, CUT, TORN_UPLOAD, FULL_DISK})
ON_WRITES = frozenset({TORN_UPLOAD, FULL_DISK})
"""Kinds that wait for a request that has a body."""

SLOW_S = 2.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "expect", "transfer-encoding"})


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@contextmanager
def running_proxy(store_url: str, orders: Orders) -> Iterator[str]:
    """A proxy before the store at `store_url` ("http://127.0.0.1:8000"); gives its own address."""
    place = urlsplit(store_url)
    host, port = place.hostname or "127.0.0.1", place.port or 80

    class Handler(_Handler):
        """Requests of this proxy."""

        upstream = (host, port)

    Handler.orders = orders
    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="drill-proxy", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Tells of errors, but for clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: tuple[str, int]
    orders: Orders

    def do_GET(self) -> None:
        """Passes it on."""
        self._serve()

    def do_HEAD(self) -> None:
        """Passes it on."""
        self._serve()

    def do_PUT(self) -> None:
        """Passes it on."""
        self._serve()

    def do_POST(self) -> None:
        """Passes it on."""
        self._serve()

    def do_DELETE(self) -> None:
        """Passes it on."""
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: requests carry signatures."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        order = self.orders.take(KINDS if body else KINDS - ON_WRITES)
        with suppress(ConnectionError, http.client.HTTPException):  # either side is gone: it will notice
            if order is None:
                self._answer(self._relay(body))
            else:
                self._misbehave(order, body)
            return
        self.close_connection = True

    def _misbehave(self, order: Order, body: bytes) -> None:
        """Carries out an order."""
        often = order.number % 2 == 0  # every other one reaches the store before it goes wrong

        if order.kind == SLOW:
            time.sleep(SLOW_S)
            self._answer(self._relay(body))
        elif order.kind == TORN_UPLOAD:
            self._relay(body, num_bytes=len(body) // 2)
            self.close_connection = True
        elif order.kind == CUT:
            answer = self._relay(body) if often else None
            if answer is not None:
                self._answer(answer, num_bytes=len(answer.body) // 2)
            self.close_connection = True
        elif order.kind == HTTP_500:
            if often:
                self._relay(body)
            self._answer(_failure(500, "InternalError"))
        elif order.kind == HTTP_503:
            self._answer(_failure(503, "SlowDown"))
        else:
            self._answer(_failure(507, "InsufficientStorage"))

    def _relay(self, body: bytes, num_bytes: int | None = None) -> _Answer:
        """What the store says; with `num_bytes`, sends so many and hangs up."""
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[:num_bytes])
            if num_bytes is not None:
                raise ConnectionResetError("drill: torn upload")
            answer = connection.getresponse()
            return _Answer(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _answer(self, answer: _Answer, num_bytes: int | None = None) -> None:
        self.send_response_only(answer.status)
        told = {name.lower() for name, _ in answer.headers}
        for name, value in answer.headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in told and answer.status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[:num_bytes])


def _failure(status: int, code: str) -> _Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>drill</Message></Error>'
    return _Answer(status, (("Content-Type", "application/xml"),), body.encode())
