"""What two generations name differently, by shard and column: names and sums only, nothing is opened.

It doesn't know: what changed inside a shard; workers/measure/compare.py reads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.manifest import GenerationRow


@dataclass(frozen=True)
class RowChange:
    """A shard of a column that differs: None where a generation lacks it."""

    shard: int
    column: str
    before: GenerationRow | None
    after: GenerationRow | None


@dataclass(frozen=True)
class SettingChange:
    """One setting that differs; `name` is "section.field", None where a generation has no such setting."""

    name: str
    before: Any
    after: Any


def changed_rows(before: Generation, after: Generation) -> tuple[RowChange, ...]:
    """Rows whose data has other bytes, or that only one of the two has, by shard and column."""
    ours = {(row.shard, row.column): row for row in before.rows()}
    theirs = {(row.shard, row.column): row for row in after.rows()}
    return tuple(
        RowChange(shard, column, ours.get((shard, column)), theirs.get((shard, column)))
        for shard, column in sorted(ours.keys() | theirs.keys())
        if _bytes_of(ours.get((shard, column))) != _bytes_of(theirs.get((shard, column)))
    )


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[SettingChange, ...]:
    """Settings that differ between two `Generation.settings`, by name."""
    ours, theirs = dict(_flat(before)), dict(_flat(after))
    return tuple(
        SettingChange(name, ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    )


def _bytes_of(row: GenerationRow | None) -> tuple[str, int] | None:
    return None if row is None else (row.data.sha256, row.num_rejects)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", value))
    return flat
