"""Shards that wait for a worker, and which of them each worker is told of ahead.

A worker that knows its next shard takes the first images in while it finishes the last (next_shard.py). What
it was told of is kept for it as long as there is other work; nothing waits for it.

A shard that kills workers must not be held against others: a shard that has had a turn is never told of, one
is told of once at most, and a turn that is a second one is told nothing. So a death while a shard was looked
at ahead costs one turn of another, and its own turn finds it out.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

from maskmill.workers.pool.blame import History
from maskmill.workers.run.spec import ShardTask


class Todo:
    """Args: next_shard: gives a shard at a time, None while there is none."""

    def __init__(self, next_shard: Callable[[], int | None]) -> None:
        self._next_shard = next_shard
        self._waiting: deque[History] = deque()
        self._told: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def pull(self, count: int) -> None:
        """Has `count` shards wait, or as many as there are now."""
        while len(self._waiting) < count and (shard := self._next_shard()) is not None:
            self._waiting.append(History(shard))

    def append(self, history: History) -> None:
        """A shard that is to have another turn."""
        self._waiting.append(history)

    def take(self, worker: int) -> History:
        """The worker's next: what it was told of, else the first that nobody was told of, else the first."""
        found = next((one for one in self._waiting if self._told.get(one.shard) == worker), None)
        if found is None:
            found = next((one for one in self._waiting if one.shard not in self._told), self._waiting[0])
        self._waiting.remove(found)
        self._told.pop(found.shard, None)  # it has a turn now, and none is told of it again
        return found

    def task_of(self, history: History, worker: int) -> ShardTask:
        """The shard's next turn, by this worker, which is told what will probably come after."""
        task = history.next_task()
        ahead = (one for one in self._waiting if not one.attempts and one.shard not in self._told)
        if history.attempts > 1 or (likely := next(ahead, None)) is None:
            return task
        self._told[likely.shard] = worker
        return dataclasses.replace(task, likely_next=likely.shard)
