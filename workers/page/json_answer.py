"""An answer in JSON: what JSON cannot say (infinity, NaN) is null, dataclasses are objects."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from fastapi import Response

from maskmill.pipeline.checks import finite

FRESH = {"cache-control": "no-store"}


def json_answer(value: Any) -> Response:
    """The answer.

    Values are looked through one by one only where one of them is no number of JSON's: to look through a
    picture of a thousand masks takes longer than to send it.
    """
    try:
        text = _told(value)
    except ValueError:
        text = _told(finite(json.loads(json.dumps(value, default=_fields))))
    return Response(text.encode(), media_type="application/json", headers=FRESH)


def _told(value: Any) -> str:
    return json.dumps(value, default=_fields, allow_nan=False, separators=(",", ":"))


def _fields(value: Any) -> dict[str, Any]:
    """A dataclass as an object. Raises TypeError for anything else."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value).__name__} has no JSON")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
