"""Claims: who has a picture open now. A hint with an age, no lock.

    review/claims/<key>/<digest of the name>.json   overwritten while the picture is open, then removed

Nothing depends on it: two people may save one picture, and both saves are kept (dataset/saves.py). Ages are
differences of the store's own times. One that is older than `FRESH_S` counts as gone; garbage collection
removes it later.

It doesn't know: people, beyond the name they gave.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from maskmill.storage.drivers.store_time import store_clock
from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.json_text import load_object
from maskmill.storage.stores.base import ObjectStore

FOLDER = "review/claims"
FRESH_S = 300.0


@dataclass(frozen=True)
class Claim:
    """`who` has picture `key` open; told `age_s` seconds ago by the store's times."""

    key: str
    who: str
    age_s: float


def claim(store: ObjectStore, key: str, who: str) -> None:
    """Says that somebody works on a picture now; to be said again every minute or two.

    Args:
        store: the dataset.
        key: of the picture.
        who: as its saves will say.
    """
    text = json.dumps({"key": key, "who": who}, sort_keys=True, ensure_ascii=False)
    store.put(_name(key, who), f"{text}\n".encode())


def release(store: ObjectStore, key: str, who: str) -> None:
    """Takes a claim back; nothing if there is none."""
    store.delete(_name(key, who))


def claims(
    store: ObjectStore, *, fresh_s: float = FRESH_S, clock: Callable[[], float] | None = None
) -> dict[str, tuple[Claim, ...]]:
    """Who works on which pictures now, by key, the newest claim first.

    Args:
        store: the dataset.
        fresh_s: older claims count as gone.
        clock: seconds since 1970 at the store; None asks it, which is a write: keep one (`store_clock`).
    """
    listed = list(store.list(f"{FOLDER}/"))
    if not listed:
        return {}
    now_s = (clock or store_clock(store))()
    found: dict[str, list[Claim]] = {}
    for info in listed:
        age_s = max(0.0, now_s - info.modified_s)
        who = _who(store, info.name) if age_s <= fresh_s else None
        if who is not None:
            key = info.name.split("/")[-2]
            found.setdefault(key, []).append(Claim(key, who, age_s))
    return {key: tuple(sorted(some, key=lambda one: one.age_s)) for key, some in found.items()}


def _name(key: str, who: str) -> str:
    return f"{FOLDER}/{key}/{hashlib.sha256(who.encode()).hexdigest()[:16]}.json"


def _who(store: ObjectStore, name: str) -> str | None:
    """The name in a claim; None where it is gone or cannot be read, as a hint may be."""
    try:
        return str(load_object(store.read(name))["who"])
    except (ObjectNotFound, ValueError, KeyError):
        return None
