"""Talks to a Prefect server as its pages do."""

from __future__ import annotations

import subprocess
import time
import urllib.error
from collections.abc import Callable
from typing import Any

from maskmill.flows.services.prefect.api import PrefectApi

TRIES = 20

Run = Callable[..., subprocess.CompletedProcess[str]]
"""A command of maskmill's that talks to a test's server."""


def post(api: PrefectApi, path: str, body: dict[str, Any]) -> Any:
    """What the server answers to a body; while its SQLite is busy (503) Prefect's clients ask again,
    and so does this."""
    for _ in range(TRIES):
        try:
            return api.send(path, body)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.5)
    raise TimeoutError(f"{api.url}/{path}: 503 {TRIES} times")


def ask(api: PrefectApi, what: str) -> list[dict[str, Any]]:
    """Everything of a kind ("flow_runs", "artifacts", ...) that the server knows."""
    found: list[dict[str, Any]] = post(api, f"{what}/filter", {})
    return found
