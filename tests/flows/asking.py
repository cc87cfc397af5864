"""Asks a Prefect server what it knows."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def ask(url: str, what: str) -> list[dict[str, Any]]:
    """Everything of a kind ("flow_runs", "artifacts", ...) that the server at `url` knows."""
    request = urllib.request.Request(
        f"{url}/{what}/filter", data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found
