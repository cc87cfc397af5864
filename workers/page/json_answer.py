"""An answer in JSON: what JSON cannot say (infinity, NaN) is null, dataclasses are objects."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi.responses import JSONResponse

from maskmill.pipeline.checks import finite

FRESH = {"cache-control": "no-store"}


def json_answer(value: Any) -> JSONResponse:
    """The answer."""
    return JSONResponse(finite(_plain(value)), headers=FRESH)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
