"""What a worker does about forgotten images: before its turn at a shard, and when a commit was refused.

The plan's marks are the law (storage/plan/marks.py). A turn begins with records that keep it: nothing is made
from a forgotten image; a commit that meets a mark made meanwhile is refused, and the turn begins again.

It does not know: older generations, which keep their objects until `forget` removes them.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from maskmill.storage.care.rewrite import settle_forgotten
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.errors import DamagedObject, ObjectNotFound
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.run.spec import RunSpec, ShardTask

log = logging.getLogger(__name__)


def settle(store: ObjectStore, shard: int) -> None:
    """Rewrites what is committed of a shard and holds forgotten images; what is damaged is left to a repair.

    Raises:
        StorageError: the store failed.
    """
    with suppress(DamagedObject, ObjectNotFound):
        settle_forgotten(store, created_utc=now_utc(), shards=[shard])


def take_back(store: ObjectStore, spec: RunSpec, task: ShardTask) -> None:
    """After a refused commit: settles the shard, and removes what the attempt wrote and no record names.

    Raises:
        StorageError: the store failed.
    """
    log.info("shard %d: images of it were forgotten meanwhile; it is done again without them", task.shard)
    settle(store, task.shard)
    for column, digits in spec.fingerprints.items():
        version = ColumnVersion(store, column, digits)
        record = version.record(task.shard)
        named = {one.name for one in (record.data, record.index) if one is not None} if record else set()
        for name in (
            version.data_name(task.shard, task.attempt),
            version.index_name(task.shard, task.attempt),
        ):
            if name not in named:
                store.delete(name)
