"""JSON from bytes that somebody else may have damaged."""

from __future__ import annotations

import json
from typing import Any


def load_json(data: bytes | str) -> Any:
    """What the JSON says. Raises ValueError for anything that is none, nested too deep included."""
    try:
        return json.loads(data)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc
