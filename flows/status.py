"""What a dataset holds, from names and small records alone: quick on any size, and imports nothing heavy."""

from __future__ import annotations

from typing import Any

from storage.columns import list_columns, list_versions, making_order
from storage.generations import latest, list_generations
from storage.lease import others
from storage.objects import open_store
from storage.plan import load_plans


def describe(dataset: str) -> dict[str, Any]:
    """JSON of a dataset: plan, column versions with their committed shards, generations, live drivers.

    Raises:
        StorageError: it cannot be read, or its records are damaged.
    """
    store = open_store(dataset)
    plan = load_plans(store)
    generation = latest(store)
    versions = [
        version for column in making_order(list_columns(store)) for version in list_versions(store, column)
    ]
    return {
        "dataset": store.root,
        "images": plan.num_images,
        "shards": plan.num_shards,
        "skipped": plan.rejects_by_reason,
        "columns": [
            {
                "column": version.column,
                "fingerprint": version.fingerprint,
                "committed": len(version.committed()),
            }
            for version in versions
        ],
        "generations": list_generations(store),
        "generation": None
        if generation is None
        else {
            "number": generation.number,
            "created_utc": generation.created_utc,
            "totals": dict(generation.totals),
            "models": dict(generation.models),
            "columns": dict(generation.columns),
        },
        "drivers": [driver.owner for driver in others(store)],
    }
