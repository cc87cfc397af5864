"""The page's door: who may ask, and what a browser may do with the answer.

    the address      every path begins with the token, which is drawn at each start and compared in constant
                     time; without it there is nothing here
    the host         only loopback's own names with this port, so that no other site's name leads here
    the origin       a request that says where it comes from must come from this page
    the answers      scripts, styles and pictures of this server and nothing else; never in a frame

It does not know: what is behind the door (app.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 << 20

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """Lets requests with the token through to the app, with the token taken off their paths.

    Args:
        app: behind the door.
        token: of this start.
        port: that the server listens on.
    """

    def __init__(self, app: App, *, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # start and end of the server; nothing listens to sockets
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        inner = "/" + scope["path"].split("/", 2)[2]
        scope = {**scope, "path": inner, "raw_path": inner.encode()}
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why a request is turned away: status and words; None lets it in."""
        headers = dict(scope["headers"])
        if headers.get(b"host") not in self._hosts:
            return 403, "this page is asked for by its own address only"
        given, _, rest = scope["path"].removeprefix("/").partition("/")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token) or (
            not rest and not scope["path"].endswith("/")
        ):
            return 403, "open the whole address that `maskmill browse` printed: it ends with a token"
        origin = headers.get(b"origin")
        if origin is not None and origin not in {b"http://" + host for host in self._hosts}:
            return 403, "a page of another origin may not ask here"
        is_opened = headers.get(b"sec-fetch-mode") == b"navigate"  # a link followed, not a page asking
        if not is_opened and headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
            return 403, "another site may not ask here"
        if int(headers.get(b"content-length") or 0) > MAX_BODY_BYTES:
            return 413, "too large"
        return None


async def _refuse(send: Send, status: int, words: str) -> None:
    headers = [*HEADERS, (b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        """Adds the headers to the start of an answer."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return sending
