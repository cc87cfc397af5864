"""The page of a run on a GPU: its JSON as tables, prediction beside outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def of(results: Mapping[str, Any]) -> str:
    """Markdown of a book's results.

    Args:
        results: by section.
    """
    lines = ["# The engine on a GPU", ""]
    failed = [name for name, found in results.items() if isinstance(found, dict) and "failed" in found]
    if failed:
        lines += [f"**Failed: {', '.join(failed)}** (tracebacks are in the JSON).", ""]
    for name, found in results.items():
        lines += [f"## {name}", "", *_section(found), ""]
    return "\n".join(lines)


def _section(found: Any) -> list[str]:
    """A table of rows, of named rows, or of values."""
    if isinstance(found, list):
        return _table(found)
    if "failed" in found:
        return ["```", found["failed"].rstrip(), "```"]
    rows = [{"": name, **value} for name, value in found.items() if isinstance(value, Mapping)]
    plain = [f"* {name}: {value}" for name, value in found.items() if not isinstance(value, Mapping)]
    return [*plain, *([""] if plain and rows else []), *(_table(rows) if rows else [])]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every row's columns, in the order in which they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return head + ["| " + " | ".join(str(row.get(name, "")) for name in columns) + " |" for row in rows]
