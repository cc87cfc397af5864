"""What a dataset holds, from names and small records alone: quick on any size, and imports nothing heavy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from maskmill.storage.dataset.columns import list_columns, list_versions, making_order
from maskmill.storage.dataset.generations import latest, list_generations
from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.drivers.claims import claims
from maskmill.storage.drivers.lease import others
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store


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
        "reviews": _reviews(store),
    }


def _reviews(store: ObjectStore) -> dict[str, Any]:
    """What people saved, and what they have open now, from names and claims alone."""
    numbers = saved_numbers(store)
    return {
        "pictures": len(numbers),
        "saves": sum(len(some) for some in numbers.values()),
        "open": {key: [one.who for one in some] for key, some in sorted(claims(store).items())},
    }


def watched(
    dataset: str,
    *,
    every_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """Looks at a dataset again and again; adds the pace since the first look, and the time left by it.

    The pace counts images of the column that is furthest behind among those of the latest work: shards whose
    every column is committed.
    """
    first: tuple[float, int] | None = None
    while True:
        found = describe(dataset)
        done = _images_committed(found)
        now = clock()
        if first is None:
            first = (now, done)
        elapsed_s, new = now - first[0], done - first[1]
        pace = new / elapsed_s if elapsed_s > 0 and new else None
        left = (found["images"] - done) / pace if pace else None
        yield {**found, "images_committed": done, "images_per_s": pace, "left_s": left}
        sleep(every_s)


def _images_committed(found: dict[str, Any]) -> int:
    """About how many images have masks: shards committed of the fullest version, in images."""
    shards = [version["committed"] for version in found["columns"] if version["column"] == "masks"]
    share = max(shards, default=0) / found["shards"] if found["shards"] else 0.0
    return round(share * int(found["images"]))
