"""Talks to a Prefect server as its pages do."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    """What the server at `url` answers to a body."""
    request = urllib.request.Request(
        f"{url}/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def ask(url: str, what: str) -> list[dict[str, Any]]:
    """Everything of a kind ("flow_runs", "artifacts", ...) that the server at `url` knows."""
    found: list[dict[str, Any]] = post(url, f"{what}/filter", {})
    return found
