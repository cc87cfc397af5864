"""Shards to Ray's workers, and what they say back: the step that takes hours.

It looks at storage for what is missing, so it may be repeated, by this driver or another, without harm. Ray
is imported only when there are shards to annotate.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig
from maskmill.flows.report.observe import observed
from maskmill.flows.report.report import Tally, watcher
from maskmill.flows.services import state as up_state
from maskmill.flows.services.ray import cluster
from maskmill.pipeline.settings import BoxSettings
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.drivers.lease import check_lease
from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.events import (
    REMARKS,
    NodeLost,
    Progress,
    RunStopped,
    ShardDone,
    ShardFailed,
    WorkerLost,
)

if TYPE_CHECKING:
    from maskmill.workers.run.events import PoolEvent, Progress
    from maskmill.workers.run.spec import RunSpec
    from maskmill.workers.stages.build import Stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotated:
    """What the annotate step did.

    Attributes:
        new_images: images annotated or rejected by this run.
        failed_shards: shard -> why it was given up.
        seconds: since the first worker was ready; 0 when nothing was to do.
        remarks: what is worth a look -> images taken in by this run that it is true of.
    """

    new_images: int = 0
    failed_shards: Mapping[int, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)


def annotate_shards(
    spec: RunSpec,
    config: RunConfig,
    shards: Mapping[int, int] | ShardFeed,
    *,
    build: Callable[[RunSpec], Stages] | None = None,
) -> Annotated:
    """Ingests and annotates `shards` on a pool of Ray workers; returns when each is committed or given up.

    Args:
        spec: what workers make.
        config: [run] counts, and what the models need.
        shards: shard -> images planned in it, in the order to be worked; a feed may get more meanwhile.
        build: makes a worker's stages where they are no models: workers then take a CPU each, wherever.

    Raises:
        InputError: a file of boxes that is of no picture of the dataset.
        ClusterError: no cluster.
        RunStopped: an error in our code, workers that cannot start, Ray ended here twice; what is committed
            stays.
        LeaseLost: this driver was silent for so long that others count it as dead; likewise.
    """
    feed = shards if isinstance(shards, ShardFeed) else ShardFeed(shards)
    if feed.ended:
        return Annotated()
    if feed.complete:
        spec = without_idle(spec, feed.shards)
    if spec.settings.of(BoxSettings).file is not None:
        watcher().note(boxes_told(spec))
    follower = _Follower(feed.shards)
    with cluster.connected(up_state.ray_address(config.run.ray_address)):
        try:
            _work(spec, config, feed, build, follower)
        except NodeLost as lost:
            watcher().note(f"{lost}; what is committed is kept, and Ray is started again")
            cluster.start_again()
            follower.begin_again()
            feed.begin_again(left_of(spec, feed.shards))
            _work(spec, config, feed, build, follower, again=True)
        return follower.outcome()


def _work(
    spec: RunSpec,
    config: RunConfig,
    feed: ShardFeed,
    build: Callable[[RunSpec], Stages] | None,
    follower: _Follower,
    *,
    again: bool = False,
) -> None:
    """The pool's work on the connected cluster, until it is done.

    Raises:
        NodeLost: Ray's processes that this one started have ended.
        RunStopped, LeaseLost: as `annotate_shards`; `again`: Ray has ended a second time.
    """
    from maskmill.workers.pool.own_node import check_own_node
    from maskmill.workers.pool.pool import run_pool  # imports Ray, which reads its environment then

    check_own_node()
    store = open_store(spec.root)
    crew = cluster.plan_crew(config) if build is None else cluster.cpu_crew(config)
    events = run_pool(
        spec,
        feed,
        resources=crew.resources,
        num_workers=cluster.most_workers(config, crew),
        max_attempts=config.run.max_attempts,
        deadline_s=config.run.deadline_s,
        make_actor=cluster.worker_source(spec, crew.resources, build),
        autoscale=config.run.autoscale,
    )
    try:
        with observed(config, spec.root, feed.shards, run_name()) as observe:
            for event in events:
                check_lease(store)
                follower.see(event)
                observe(event)
    except NodeLost as lost:
        cluster.forget_warm()
        if again:
            raise RunStopped(
                f"{lost}, for the second time in this run: look for what ends it (memory: `dmesg`), then run "
                "the same command again; it goes on from what is committed"
            ) from lost
        raise
    finally:
        events.close()
        cluster.dismiss_warm()


def left_of(spec: RunSpec, shards: Mapping[int, int]) -> dict[int, int]:
    """Of shards, those that still lack a column of the run."""
    store = open_store(spec.root)
    done = [ColumnVersion(store, name, digits).committed() for name, digits in spec.fingerprints.items()]
    return {shard: images for shard, images in shards.items() if not all(shard in one for one in done)}


def without_idle(spec: RunSpec, shards: Iterable[int]) -> RunSpec:
    """The spec with the columns named that none of these shards lacks: workers don't load their models."""
    store, todo = open_store(spec.root), set(shards)
    idle = [
        name
        for name, digits in spec.fingerprints.items()
        if todo <= ColumnVersion(store, name, digits).committed()
    ]
    return dataclasses.replace(spec, idle=tuple(idle))


def boxes_told(spec: RunSpec) -> str:
    """What a run's file of boxes matches in the dataset, in a sentence, before work starts.

    Raises:
        InputError: nothing, or a file that cannot be read.
    """
    from maskmill.workers.foreign.boxes import check_boxes, read_given_boxes

    settings = spec.settings.of(BoxSettings)
    assert settings.file is not None
    boxes = read_given_boxes(settings.file, min_score=settings.min_score)
    return check_boxes(boxes, load_plans(open_store(spec.root)))


def run_name() -> str:
    """What metrics and logs call this run: Prefect's name of it, or this process."""
    runtime = sys.modules.get("prefect.runtime")
    name = runtime.flow_run.name if runtime is not None else None
    return str(name or f"process-{os.getpid()}")


class _Follower:
    """Turns the pool's events into tallies and notes for the watcher, and the step's outcome."""

    def __init__(self, shards: Mapping[int, int]) -> None:
        self._shards = shards
        self._tally = Tally(images_total=0, shards_total=0)
        self._ready_s: float | None = None
        self._failed: dict[int, str] = {}
        self._new_images = 0
        self._noted: set[str] = set()
        self._remarks: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def see(self, event: PoolEvent) -> None:
        """Takes an event into account, and tells who watches what they should know."""
        match event:
            case Progress():
                self._progress(event)
            case ShardDone(report=report):
                self._note(report.notes)
                self._done.update(
                    images=report.num_annotated,
                    masks=report.num_masks,
                    rejects=sum(report.rejects.values()),
                    shards=1,
                )
                self._remarks.update(report.remarks)
                self._new_images += 0 if report.already_done or report.lost_race else report.num_images
            case ShardFailed(shard=shard, attempts=attempts, reason=reason):
                self._failed[shard] = reason
                watcher().note(f"shard {shard} is given up after {attempts} attempts: {reason}")
            case WorkerLost(worker=worker, shard=shard, reason=reason):
                held = "between shards" if shard is None else f"in shard {shard}, which is tried again"
                watcher().note(f"worker {worker} was lost {held}: {reason}")

    def _note(self, notes: Iterable[str]) -> None:
        """Each text once: a hundred workers halve their batches alike."""
        for text in notes:
            if text not in self._noted:
                self._noted.add(text)
                watcher().note(text)

    def begin_again(self) -> None:
        """A pool after another: its sums begin anew, what the one before had done is added to them."""
        self._before = self._done.copy()

    def outcome(self) -> Annotated:
        """What came of the shards, once no more events come; remarks are told here."""
        seconds = time.monotonic() - self._ready_s if self._ready_s is not None else 0.0
        self._tell_remarks()
        return Annotated(
            new_images=self._new_images,
            failed_shards=self._failed,
            seconds=seconds,
            remarks=dict(self._remarks),
        )

    def _tell_remarks(self) -> None:
        for name, count in sorted(self._remarks.items()):
            watcher().note(REMARKS[name].format(count=count))

    def _progress(self, event: Progress) -> None:
        if self._ready_s is None and event.workers_ready:
            self._ready_s = time.monotonic()
        self._tally = dataclasses.replace(
            self._tally,
            images_total=sum(self._shards.values()),
            shards_total=len(self._shards),
            images_done=event.images_done + self._before["images"],
            masks_done=event.masks_done + self._before["masks"],
            num_rejects=event.num_rejects + self._before["rejects"],
            shards_done=event.shards_done + self._before["shards"],
            workers_ready=event.workers_ready,
            elapsed_s=time.monotonic() - self._ready_s if self._ready_s is not None else 0.0,
        )
        watcher().tally(self._tally)
