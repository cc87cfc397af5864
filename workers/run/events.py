"""What a run on the pool tells its driver; light to import, so drivers can read it before ray is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maskmill.workers.run.spec import ShardReport

NARROW_RANGE = "narrow_range"
"""A remark: a 16-bit picture that uses less than a tenth of its range, and is stored nearly of one shade."""

REMARKS = {
    NARROW_RANGE: "pictures that use less than a tenth of the range of their 16 bits, and are stored nearly "
    "of one shade: {count}; `--set ingest.range=percentile` stretches each to what it holds"
}
"""Remark -> what it says to people."""


class RunStopped(Exception):
    """The run cannot go on: the message says why and what to do; `shard` is where it came up, if anywhere."""

    def __init__(self, message: str, shard: int | None = None) -> None:
        super().__init__(message, shard)
        self.message = message
        self.shard = shard

    def __str__(self) -> str:
        return self.message if self.shard is None else f"shard {self.shard}: {self.message}"


class NodeLost(RunStopped):
    """Ray's processes on this machine, which this driver started, have ended; it may start them again."""


class ClusterLost(RunStopped):
    """The cluster that this driver joined is gone; nobody here can start it again."""


@dataclass(frozen=True, kw_only=True)
class ShardDone:
    """A shard's columns are all committed."""

    report: ShardReport
    attempts: int


@dataclass(frozen=True, kw_only=True)
class ShardFailed:
    """A shard was given up after `attempts` turns; the run goes on without it."""

    shard: int
    attempts: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """A worker died, hung or went with its node; `shard` is what it held. A new one takes its place."""

    worker: int
    shard: int | None
    reason: str
    node_lost: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Sums over the whole run so far, shards in work included; at most one a `progress_every_s`.

    `gpu_bytes`: of each worker in work, by its number.
    """

    images_done: int
    masks_done: int
    num_rejects: int
    shards_done: int
    shards_in_work: tuple[int, ...]
    workers_ready: int
    workers_starting: int
    gpu_bytes: Mapping[int, int] = field(default_factory=dict)


PoolEvent = ShardDone | ShardFailed | WorkerLost | Progress
