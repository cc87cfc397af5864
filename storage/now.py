"""The time as records keep it. One form, so that records sort and compare by it as text.

It does not know: a store's clock (drivers/lease.py); ages are judged by that one.
"""

from __future__ import annotations

from datetime import UTC, datetime


def now_utc() -> str:
    """Now, as ISO 8601 in UTC to the second: "2025-01-01T00:00:00+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")
