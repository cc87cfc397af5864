"""A place on the pool: the worker in it, and the shard it holds. Who sits where is pool.py's to decide."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from maskmill.workers.pool.actors import Worker, WorkerInfo
from maskmill.workers.pool.blame import History
from maskmill.workers.run.spec import ShardProgress, ShardTask


@dataclass(eq=False)
class Seat:
    """A live worker: starting (`info` is None), idle (`waiting` is None too), or with a shard in work."""

    number: int
    worker: Worker
    waiting: Any
    since: float
    info: WorkerInfo | None = None
    history: History | None = None
    task: ShardTask | None = None
    poll: Any = None
    progress: ShardProgress = field(default_factory=ShardProgress)
    moved: float = 0.0
    began: float = field(default_factory=time.monotonic)
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def held(self) -> History:
        """The shard in work; there must be one."""
        assert self.history is not None
        return self.history
