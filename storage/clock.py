"""The time, as records keep it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_utc() -> str:
    """Now, ISO 8601 in UTC, whole seconds: `2026-11-27T10:15:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")
