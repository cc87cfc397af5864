"""Damage at rest to what says what there is: plans, commit records, indexes, manifests, generations.

Each is damaged alone: `verify` must name it, and whoever reads the dataset must end with an error of ours or
read it right. What `repair` makes again is repaired; the rest is put back, as from a backup.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import generation_name, latest
from maskmill.storage.dataset.join import join
from maskmill.storage.errors import StorageError
from maskmill.storage.plan.plan import load_plans, part_name
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.drill.upsets import names

REPAIRABLE = frozenset({names.DAMAGED_COMMIT, names.DAMAGED_INDEX})
OURS = ("images/", "masks/")
"""Columns that the drill's job makes; an import's are made again by importing again."""


@dataclass(frozen=True)
class Outcome:
    """What came of damaged records: how many by kind were not named by verify, and what went wrong."""

    num_hurt: Mapping[str, int]
    undetected: int
    problems: tuple[str, ...]


def try_damages(
    store: ObjectStore, counts: Mapping[str, int], rng: random.Random, repair: Callable[[], object]
) -> Outcome:
    """Damages so many records of each kind, one after another, and mends each.

    Args:
        store: a sound dataset, at rest; as sound afterwards.
        counts: by kind.
        rng: chooses which, and how.
        repair: makes again what is damaged and can be.
    """
    hurt, undetected, problems = dict.fromkeys(counts, 0), 0, list[str]()
    for kind, count in counts.items():
        for number in range(count):
            name = _choose(store, kind, rng)
            if name is None:
                continue
            whole = store.read(name)
            how = _damage(store, name, whole, _way(kind, number + rng.randrange(3)), rng)
            hurt[kind] += 1

            told = "\n".join(verify(store, deep=True).problems)
            if name not in told:
                undetected += 1
                problems.append(f"verify does not name {name}, which was {how}; it says: {told[:300] or '-'}")
            problems += _reader_faults(store, f"{name}, {how}")
            mendable = kind in REPAIRABLE and name.startswith(OURS)
            if mendable:
                repair()
            if not mendable or not verify(store, deep=True).ok:
                if mendable:
                    problems.append(f"{name}, which was {how}, is not repaired")
                store.put(name, whole)
            problems += [f"after {name} was {how}: {one}" for one in verify(store, deep=True).problems[:3]]
    return Outcome(hurt, undetected, tuple(problems))


def _choose(store: ObjectStore, kind: str, rng: random.Random) -> str | None:
    """A record in force of this kind; None where there is none."""
    generation = latest(store)
    if generation is None:
        return None
    rows = generation.rows()
    if kind == names.DAMAGED_PLAN:
        plan = load_plans(store)
        tables = [table.written.name for part in plan.parts for table in part.tables]
        return rng.choice([*(part_name(number + 1) for number in range(len(plan.parts))), *tables])
    if kind == names.DAMAGED_MANIFEST:
        return generation.manifest.name
    if kind == names.DAMAGED_GENERATION:
        return generation_name(generation.number)
    if kind == names.DAMAGED_COMMIT:
        return rng.choice([row.record for row in rows])
    indexes = [row.index.name for row in rows if row.index is not None]
    return rng.choice(indexes) if indexes else None


def _way(kind: str, number: int) -> int:
    """Which damage; a newest generation without its record is one whose publication was killed: no damage."""
    return number % (2 if kind == names.DAMAGED_GENERATION else 3)


def _damage(store: ObjectStore, name: str, whole: bytes, way: int, rng: random.Random) -> str:
    if way == 0:
        place = rng.randrange(len(whole))
        store.put(name, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        return f"changed at byte {place}"
    if way == 1:
        store.put(name, whole[: len(whole) // 2])
        return "cut in half"
    store.delete(name)
    return "removed"


def _reader_faults(store: ObjectStore, what: str) -> list[str]:
    """What a reader ends with that is no error of ours."""
    try:
        load_plans(store)
        generation = latest(store)
        for _ in join(store, generation) if generation is not None else ():
            pass
    except StorageError:
        return []
    except (ValueError, KeyError, TypeError, OSError, ArithmeticError, LookupError, AssertionError) as exc:
        return [f"{what}: a reader ends with {type(exc).__name__}: {exc}"]
    return []
