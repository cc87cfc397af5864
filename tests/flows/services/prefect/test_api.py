"""Prefect's API by plain HTTP: what is sent, and that a token is asked for once."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maskmill.flows.services.prefect.api import PrefectApi

AUTH = "maskmill:a secret: with a colon"


class Server(http.server.ThreadingHTTPServer):
    """Answers as Prefect's does, and remembers what it was asked."""

    def __init__(self, *, tokens: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokens, self.asked = tokens, list[tuple[str, str, dict[str, str], Any]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api"

    def paths(self) -> list[str]:
        return [f"{method} {path.partition('?')[0]}" for method, path, _, _ in self.asked]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = json.loads(body) if body else None
        self.server.asked.append((self.command, self.path, dict(self.headers), sent))
        code, found = 200, json.dumps({"you": "said", "body": sent}).encode()
        if self.headers.get("Authorization") != f"Basic {base64.b64encode(AUTH.encode()).decode()}":
            code, found = 401, b"{}"
        elif self.path.startswith("/api/csrf-token"):
            code, found = self.server.tokens, b'{"token": "t0ken"}'
        elif self.command in ("DELETE", "PATCH"):
            code, found = 204, b""
        self.send_response(code)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def serving(*, tokens: int = 200) -> Iterator[Server]:
    with Server(tokens=tokens) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(ask: Callable[[], Any]) -> int:
    """The code of the error that comes out."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask()
    caught.value.close()
    return caught.value.code


def test_reading_needs_the_secret_and_no_token() -> None:
    with serving() as server:
        api = PrefectApi(f"{server.url}/", AUTH)
        assert api.get("/health")["you"] == "said"
    assert server.paths() == ["GET /api/health"]


def test_the_token_against_forged_requests_is_asked_for_once_and_sent_with_every_change() -> None:
    with serving() as server:
        api = PrefectApi(server.url, AUTH)
        assert api.send("flows/", {"name": "ä"}) == {"you": "said", "body": {"name": "ä"}}
        assert api.send("flows/1", {}, method="PATCH") is None
    assert server.paths() == ["GET /api/csrf-token", "POST /api/flows/", "PATCH /api/flows/1"]
    client = server.asked[0][1].partition("client=")[2]
    for _, _, headers, _ in server.asked[1:]:
        assert headers["Prefect-Csrf-Token"] == "t0ken" and headers["Prefect-Csrf-Client"] == client
        assert headers["Content-Type"] == "application/json"


def test_a_server_that_asks_for_no_token_gets_none() -> None:
    with serving(tokens=422) as server:
        api = PrefectApi(server.url, AUTH)
        api.send("flows/", {})
        api.send("flows/", {})
    assert server.paths() == ["GET /api/csrf-token", "POST /api/flows/", "POST /api/flows/"]
    assert "Prefect-Csrf-Token" not in server.asked[-1][2]


@pytest.mark.parametrize("auth", [None, "maskmill:wrong"])
def test_without_the_right_secret_the_servers_no_comes_out(auth: str | None) -> None:
    with serving() as server:
        assert refusal(lambda: PrefectApi(server.url, auth).get("health")) == 401
        assert refusal(lambda: PrefectApi(server.url, auth).send("flows/", {})) == 401
    assert [bool(headers.get("Authorization")) for _, _, headers, _ in server.asked] == [auth is not None] * 2
    assert "POST /api/flows/" not in server.paths(), "nothing is changed where no token could be had"


def test_a_failing_token_is_not_taken_for_none_asked_for() -> None:
    with serving(tokens=500) as server:
        api = PrefectApi(server.url, AUTH)
        assert refusal(lambda: api.send("flows/", {})) == 500
    assert server.paths() == ["GET /api/csrf-token"]
