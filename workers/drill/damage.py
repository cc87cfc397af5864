"""Damage at rest: a flipped byte, a cut, a deletion in what a generation names."""

from __future__ import annotations

import random
from dataclasses import dataclass

from maskmill.storage.dataset.generations import latest
from maskmill.storage.stores.base import ObjectStore


@dataclass(frozen=True)
class Hurt:
    """An object and what was done to it."""

    name: str
    how: str


def damage_objects(store: ObjectStore, num_objects: int, rng: random.Random) -> list[Hurt]:
    """Damages so many of the latest generation's data objects, each of another shard."""
    generation = latest(store)
    rows = list(generation.rows()) if generation is not None else []
    by_shard = {row.shard: row for row in rng.sample(rows, len(rows)) if row.num_written}
    hurt = []
    for i, row in enumerate(list(by_shard.values())[:num_objects]):
        name = row.data.name
        whole = store.read(name)
        if i % 3 == 0:
            place = rng.randrange(len(whole))
            store.put(name, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            hurt.append(Hurt(name, f"changed at byte {place}"))
        elif i % 3 == 1:
            store.put(name, whole[: len(whole) // 2])
            hurt.append(Hurt(name, "cut in half"))
        else:
            store.delete(name)
            hurt.append(Hurt(name, "removed"))
    return hurt
