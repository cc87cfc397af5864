"""The order of tests, and what Ray reads when any module first imports it: a token, and no telemetry."""

from __future__ import annotations

import os

import pytest

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may take longest go first, so that no process ends long after the others."""

    def limit_s(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark else 0.0

    items.sort(key=limit_s, reverse=True)
