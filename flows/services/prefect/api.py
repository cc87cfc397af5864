"""Prefect's API by plain HTTP: for processes that must stay light (its client takes 2 s to import).

It sends the secret (Basic), and with every change the token that Prefect asks for against forged requests,
fetched once. It does not know where the secret comes from: api_secret.py does.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
import uuid
from typing import Any

from maskmill.flows.services.surroundings import open_url

TIMEOUT_S = 30.0
_NO_TOKENS = 422  # what a server says that asks for none


class PrefectApi:
    """A Prefect server at `url` (".../api"); `auth` is "user:password", None where it asks for none."""

    def __init__(self, url: str, auth: str | None = None) -> None:
        self.url, self._client = url.rstrip("/"), str(uuid.uuid4())
        self._auth = (
            {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth is not None else {}
        )
        self._token: dict[str, str] | None = None

    def get(self, path: str) -> Any:
        """What lies at `path`, as JSON. Raises what urllib raises."""
        return self._send(urllib.request.Request(f"{self.url}/{path.lstrip('/')}", headers=self._auth))

    def send(self, path: str, body: Any, *, method: str = "POST") -> Any:
        """The answer to a body; None where there is none. Raises what urllib raises."""
        headers = {"Content-Type": "application/json", **self._auth, **self._change_token()}
        data = json.dumps(body).encode()
        return self._send(
            urllib.request.Request(
                f"{self.url}/{path.lstrip('/')}", data=data, headers=headers, method=method
            )
        )

    def _change_token(self) -> dict[str, str]:
        if self._token is None:
            try:
                token = str(self.get(f"csrf-token?client={self._client}")["token"])
            except urllib.error.HTTPError as error:
                if error.code != _NO_TOKENS:
                    raise
                error.close()
                self._token = {}
            else:
                self._token = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": self._client}
        return self._token

    def _send(self, request: urllib.request.Request) -> Any:
        with open_url(request, timeout_s=TIMEOUT_S) as answer:
            data = answer.read()
        return json.loads(data) if data else None
