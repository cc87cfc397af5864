"""Which image a worker had in its hands: written before each image's turn, read by the driver after a death.

Only shards that killed workers before are worked this way, one image at a time. The announcement is an
object of its own per attempt, overwritten for each image; it is no truth, only a finger that points.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from maskmill.storage.errors import ObjectNotFound, StoreUnavailable
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.run.spec import ShardTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Announcement:
    """The image `key` was about to be worked for `column`."""

    column: str
    key: str


def announce(store: ObjectStore, task: ShardTask, announcement: Announcement) -> None:
    """Says what comes next; durable on return."""
    body = {"column": announcement.column, "key": announcement.key}
    store.put(_name(task.shard, task.attempt), json.dumps(body, sort_keys=True).encode())


def last_announced(store: ObjectStore, shard: int, attempt: str) -> Announcement | None:
    """What an attempt said last; None if it died before its first image, had finished its last, or the store
    doesn't answer now: a finger that cannot be seen points nowhere."""
    try:
        body = json.loads(store.read(_name(shard, attempt)))
    except (ObjectNotFound, ValueError):
        return None
    except StoreUnavailable as exc:
        log.warning("what a worker had in hand of shard %d is not known: %s", shard, exc)
        return None
    return Announcement(column=body["column"], key=body["key"])


def withdraw(store: ObjectStore, task: ShardTask) -> None:
    """Nothing is in hand any more."""
    store.delete(_name(task.shard, task.attempt))


def _name(shard: int, attempt: str) -> str:
    return f"attempts/{shard:06d}.{attempt}.json"
