"""Forgotten images: which keys the plan marks, and which records hold such an image all the same.

`forget` marks first. From then on the mark is the law: a worker leaves the image out, a commit or a
generation that holds it is refused, and what was committed before is rewritten by whoever comes upon it
(rewrite.py). Marks are read anew each time, since they may be younger than the caller's plan.

It does not know: objects that no record names; `forget` removes those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import TYPE_CHECKING

from maskmill.storage.errors import ObjectNotFound
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import read_shard
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    from maskmill.storage.dataset.records import CommitRecord

IMAGES = "images"
Marks = frozenset[str]


def marked_shards(store: ObjectStore) -> dict[int, Marks]:
    """The keys that are marked as forgotten, by shard, as the plan says now. Raises DamagedObject."""
    plan = load_plans(store)
    marks: dict[int, set[str]] = defaultdict(set)
    for key in plan.forgotten:
        marks[plan.shard_of(key)].add(key)
    return {shard: frozenset(keys) for shard, keys in sorted(marks.items())}


def marks_of(store: ObjectStore, shard: int) -> Marks:
    """The keys of a shard that are marked as forgotten, as the plan says now. Raises DamagedObject."""
    return load_plans(store).forgotten_of(shard)


def held_keys(store: ObjectStore, record: CommitRecord, marks: Marks) -> Marks:
    """Those of `marks` that a record's shard has a sample of; reads its keys where the rejects don't tell.

    Raises:
        DamagedObject, ObjectNotFound: the shard cannot be read.
    """
    left = marks - {reject.key for reject in record.rejects}
    return left and left & {sample.key for sample in read_shard(store, record.data)}


def holding(
    store: ObjectStore,
    records: Collection[CommitRecord],
    marks: Marks,
    *,
    or_gone: Collection[str] = (),
) -> list[CommitRecord]:
    """Those of a shard's records that hold an image of `marks`.

    A record that was made from images without them has none either, so few shards are read.

    Args:
        store: the dataset.
        records: of one shard, of any columns and versions.
        marks: keys of that shard.
        or_gone: sha256 of records that count also where their data is gone, as `forget` removes it.

    Raises:
        DamagedObject: a shard that has to be read is damaged.
    """
    clean = {
        record.sha256
        for record in records
        if record.column == IMAGES and marks <= {reject.key for reject in record.rejects}
    }
    doubtful = [
        record for record in records if record.sha256 not in clean and record.inputs.get(IMAGES) not in clean
    ]
    return [record for record in doubtful if _holds(store, record, marks, record.sha256 in or_gone)]


def _holds(store: ObjectStore, record: CommitRecord, marks: Marks, or_gone: bool) -> bool:
    try:
        return bool(held_keys(store, record, marks))
    except ObjectNotFound:
        return or_gone


def forget_command(store: ObjectStore, keys: Collection[str]) -> str:
    """What a person types to have these images removed."""
    return f"maskmill forget {store.root} {' '.join(sorted(keys))}"
