"""Talks to a Prefect server as its pages do."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

TRIES = 20


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    """What the server at `url` answers to a body; while its SQLite is busy (503) Prefect's clients ask again,
    and so does this."""
    request = urllib.request.Request(
        f"{url}/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.5)
    raise TimeoutError(f"{request.full_url}: 503 {TRIES} times")


def ask(url: str, what: str) -> list[dict[str, Any]]:
    """Everything of a kind ("flow_runs", "artifacts", ...) that the server at `url` knows."""
    found: list[dict[str, Any]] = post(url, f"{what}/filter", {})
    return found
