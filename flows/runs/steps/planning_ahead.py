"""Planning beside the work: the first shards go to workers while the rest of the inputs is listed and hashed.

    with planning_ahead(dataset, inputs, config, limit) as ahead:
        ahead.wait(spec)         until the plan is made, or there is work to begin with
        feed_of(spec, ahead)     the shards as they come

The planner is a thread of the driver's. One driver of a dataset plans at a time, by a claim (a hint like all
claims: plans are put-if-absent); others meanwhile work what it planned, and then plan what is new in their
own inputs. A planner that fails lets what is planned be worked, and fails the run then.

It does not know: Prefect, Ray.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.planning import (
    finished_shards,
    part_summaries,
    pending_shards,
    tell_unused,
)
from maskmill.storage.drivers.lease import own_id
from maskmill.storage.drivers.shard_claims import PLANNING, ShardClaims
from maskmill.storage.drivers.shard_feed import LOOK_EVERY_S, ShardFeed
from maskmill.storage.plan.cutting import PART_S
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.storage.plan.make_plan import PlanSummary
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.run.spec import RunSpec

COUNT_EVERY_S = 0.2
PATIENCE_S = 1800.0
"""With a planner that writes nothing; of 75 minutes' planning the longest part takes seven."""


class Going(Protocol):
    """Something that plans."""

    @property
    def going(self) -> bool:
        """Whether more shards may come."""


class PlanningAhead:
    """A plan in the making; see the file's header."""

    def __init__(self, dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None) -> None:
        self._store, self._began_s = open_store(dataset), time.monotonic()
        self._stop = threading.Event()
        self._num_looked_at = 0
        self._thread = ThreadPoolExecutor(1, "planning")
        self._made = self._thread.submit(
            contextvars.copy_context().run, self._run, dataset, inputs, config, limit
        )

    @property
    def going(self) -> bool:
        """Whether more shards may come."""
        return not self._made.done()

    def stop(self) -> None:
        """Ends it after the inputs it is at; what is written of the plan stays."""
        self._stop.set()
        self._thread.shutdown()

    def wait(self, spec: RunSpec | None = None) -> None:
        """Until the plan is made; or, after a while, until it has work to begin with.

        Args:
            spec: of the run; None waits to the end.

        Raises:
            InputError, StorageError: planning failed.
        """
        look_s = self._began_s + PART_S
        while wait([self._made], timeout=COUNT_EVERY_S).not_done:
            watcher().count(self._num_looked_at)
            if spec is not None and time.monotonic() >= look_s:
                if pending_shards(spec):
                    return
                look_s = time.monotonic() + LOOK_EVERY_S
        self._made.result()

    def tell(self) -> None:
        """Waits for the end, and tells the run's log what came of it. Raises as `wait`."""
        self.wait()
        summary = self._made.result()
        if summary is not None:
            tell_unused(summary)
            watcher().record(str(summary))

    def _run(
        self, dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None
    ) -> PlanSummary | None:
        """In the thread: what was found, None if it was stopped before."""
        with suppress(_Stopped), alone_planning(self._store, self._pause):
            *_, summary = part_summaries(dataset, inputs, config, limit, self._count)
            return summary
        return None

    def _count(self, num_looked_at: int) -> None:
        self._num_looked_at = num_looked_at
        if self._stop.is_set():
            raise _Stopped

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _Stopped


class _Stopped(Exception):
    """The run ends before its plan is made."""


@contextmanager
def planning_ahead(
    dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None
) -> Iterator[PlanningAhead]:
    """A plan in the making inside the block; it ends with it."""
    ahead = PlanningAhead(dataset, inputs, config, limit)
    try:
        yield ahead
    finally:
        ahead.stop()


@contextmanager
def alone_planning(store: ObjectStore, pause: Callable[[float], object]) -> Iterator[None]:
    """Waits while another driver plans, and asks others to wait inside the block.

    Who writes no part of the plan for half an hour is waited for no longer: it may hang.

    Args:
        store: the dataset; without a heartbeat of this process there nobody is asked to wait.
        pause: waits so many seconds.

    Raises:
        StorageError: the store failed.
    """
    driver_id = own_id(store)
    if driver_id is None:
        yield
        return
    claims, waited_s, seen = ShardClaims(store, PLANNING, driver_id), 0.0, -1
    while waited_s < PATIENCE_S and claims.take_over(0, claims.living()) is not None:
        num_parts = len(load_plans(store).parts)
        waited_s, seen = (waited_s + LOOK_EVERY_S if num_parts == seen else 0.0), num_parts
        pause(LOOK_EVERY_S)
    try:
        yield
    finally:
        claims.release(0)


def feed_of(
    spec: RunSpec, ahead: Going | None = None, *, clock: Callable[[], float] = time.monotonic
) -> ShardFeed:
    """The shards that lack a column of a run, those that are planned meanwhile included.

    Args:
        spec: of the run.
        ahead: its plan, where that is still being made.
        clock: seconds, between two looks for more.

    Raises:
        DamagedObject: a plan cannot be read.
    """
    store = open_store(spec.root)
    driver_id = own_id(store)
    going = ahead is not None and ahead.going
    seen = load_plans(store).num_shards

    def more() -> tuple[dict[int, int], bool]:
        """What was planned since, and whether more may come."""
        nonlocal seen
        assert ahead is not None
        going = ahead.going  # asked first: what it wrote before it ended is then there
        plan = load_plans(store)
        new = {shard: plan.num_images_of(shard) for shard in range(seen, plan.num_shards)}
        seen = plan.num_shards
        return new, going

    return ShardFeed(
        {shard: images for shard, images in pending_shards(spec).items() if shard < seen},
        claims=None if driver_id is None else ShardClaims(store, spec.fingerprints, driver_id),
        done=lambda: finished_shards(spec),
        more=more if going else None,
        waiting=watcher().note,
        clock=clock,
    )
