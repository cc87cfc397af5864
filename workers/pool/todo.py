"""Shards that wait for a worker, and which shard each worker is told of ahead.

A worker that knows its next shard takes the first images in while it finishes the last (next_shard.py). What
it was told of is left to it as long as there is other work; nothing waits for it, and it is claimed only when
it is handed out: another driver may take it first, and the worker gets another one.

A shard that kills workers must not be held against others: a shard that has had a turn is never told of, one
is told of once at most, and a turn that is a second one is told nothing. So a death while a shard was looked
at ahead costs one turn of another, and its own turn finds it out.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable

from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.workers.pool.blame import History
from maskmill.workers.run.spec import ShardTask


class Todo:
    """Args: feed: where shards come from, one at a time."""

    def __init__(self, feed: ShardFeed) -> None:
        self._feed = feed
        self._waiting: deque[History] = deque()
        self._told: dict[int, int] = {}  # worker -> shard; a dead worker's stays: it is told to no other

    def __len__(self) -> int:
        return len(self._waiting)

    def pull(self, count: int, free: Iterable[int] = ()) -> None:
        """Has `count` shards wait, or as many as there are now, among them what free workers were told of.

        Args:
            count: of workers that are free or soon will be.
            free: the numbers of those that are.
        """
        for worker in free:
            if worker in self._told and not self._pulled(self._told[worker]):
                return
        while len(self._waiting) < count and self._pulled(None):
            pass

    def _pulled(self, wish: int | None) -> bool:
        """Whether there was a shard; `wish`, if nobody else has it."""
        shard = self._feed.next(wish, set(self._told.values()))
        if shard is not None:
            self._waiting.append(History(shard))
        return shard is not None

    def append(self, history: History) -> None:
        """A shard that is to have another turn."""
        self._waiting.append(history)

    def take(self, worker: int) -> History:
        """The worker's next: what it was told of, else the first that nobody was told of, else the first."""
        wish = self._told.pop(worker, None)
        found = next((one for one in self._waiting if one.shard == wish), None)
        if found is None:
            told = set(self._told.values())
            found = next((one for one in self._waiting if one.shard not in told), self._waiting[0])
        self._waiting.remove(found)
        self._told = {one: shard for one, shard in self._told.items() if shard != found.shard}
        return found

    def task_of(self, history: History, worker: int) -> ShardTask:
        """The shard's next turn, by this worker, which is told what will probably come after."""
        task = history.next_task()
        likely = self._feed.likely(set(self._told.values())) if history.attempts == 1 else None
        if likely is None:
            return task
        self._told[worker] = likely
        return dataclasses.replace(task, likely_next=likely)
