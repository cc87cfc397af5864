"""The steps of a run, as plain functions of names and numbers: what the Prefect tasks of generate.py call.

Storage is the only truth: each step looks at what is committed and does what is missing, so any step may be
repeated, by this driver or another, without harm. Nothing here imports Prefect, and Ray only when there are
shards to annotate.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import RunReport, Tally, watcher
from maskmill.flows.runs.publishing import Published

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.plan.make_plan import PlanSummary
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports import ExportReport
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
    """

    new_images: int = 0
    failed_shards: Mapping[int, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def describe_run(dataset: str, config: RunConfig) -> RunSpec:
    """Everything a worker needs, with the fingerprints of the columns it will write.

    The segmenter is the dataset's promoted model where one is in force; see workers/run/dataset_models.py.

    Raises:
        WeightsError: a model's weights are missing or damaged.
        ValueError: a vocabulary has no phrases.
    """
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.run.dataset_models import in_force
    from maskmill.workers.run.spec import make_spec

    return make_spec(
        dataset,
        ingest=config.ingest,
        masks=config.masks,
        segmenter=in_force(open_store(dataset), config.segmenter),
        captions=config.captions,
        labels=config.labels,
        names=config.names,
        boxes=config.boxes,
        decode_threads=config.run.decode_threads,
        encode_threads=config.run.encode_threads,
        images_per_batch=config.run.images_per_batch,
    )


def plan_images(dataset: str, inputs: Sequence[str], config: RunConfig, limit: int | None) -> PlanSummary:
    """Plans what is new in the inputs: keys, duplicates, shard cuts. Unchanged inputs plan nothing.

    Raises:
        InputError: an input is missing, unreadable or holds no image.
    """
    from maskmill.storage.plan.make_plan import make_plan
    from maskmill.storage.stores.base import open_store

    return make_plan(
        open_store(dataset),
        inputs,
        shard_size=config.run.shard_size,
        limit=limit,
        progress=watcher().count,
    )


def check_inputs(dataset: str, inputs: Sequence[str]) -> None:
    """Looks at every input just far enough to know that it can be used. Raises InputError."""
    from maskmill.storage.plan.inputs import list_inputs

    list_inputs(inputs, dataset_root=dataset)


@contextmanager
def driving(dataset: str) -> Iterator[None]:
    """Announces this driver inside the block, and tells of others that work on the dataset now."""
    from maskmill.storage.drivers.lease import announce, others
    from maskmill.storage.drivers.one_writer import await_collector
    from maskmill.storage.stores.base import open_store

    store = open_store(dataset)
    with announce(store, "generate") as lease:
        await_collector(store, lease.driver_id, waiting=watcher().note)
        _settle(store)
        for driver in others(store, own_id=lease.driver_id):
            if (driver.owner, driver.host, driver.pid) == ("loop", socket.gethostname(), os.getpid()):
                continue  # this run is a step of it
            watcher().note(
                f"another run works on this dataset: {driver.owner} on {driver.host}, process {driver.pid}, "
                f"since {driver.started_utc}. This one goes on beside it, safely: a shard that both finish "
                "is kept once, the first one's. Ctrl-C leaves it all to the other."
            )
        yield


@contextmanager
def writing(dataset: str, owner: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Is the dataset's one writer inside the block; `generate` and `ingest` (`driving`) may run beside.

    Raises:
        WriterBusy: another writer is at work, and still is after `wait_s`.
    """
    from maskmill.storage.drivers.one_writer import writing
    from maskmill.storage.stores.base import open_store

    store = open_store(dataset)
    with writing(store, owner, wait_s=wait_s, waiting=watcher().note):
        _settle(store)
        yield


def _settle(store: ObjectStore) -> None:
    """Takes forgotten images out of what is in force, where a `forget` was refused and only marked them."""
    from maskmill.storage.care.rewrite import republish, settle_forgotten, still_holding

    shards = set(still_holding(store))
    if shards:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        settle_forgotten(store, created_utc=now, shards=shards)
        republish(store, shards, made_by="forget", created_utc=now)


def is_complete(spec: RunSpec) -> bool:
    """Whether there is a plan and every shard of it has all columns of this run."""
    from maskmill.storage.plan.plan import load_plans
    from maskmill.storage.stores.base import open_store

    return load_plans(open_store(spec.root)).num_shards > 0 and not pending_shards(spec)


def pending_shards(spec: RunSpec) -> dict[int, int]:
    """Planned shards that lack a column of this run: shard -> images planned in it."""
    from maskmill.storage.dataset.columns import ColumnVersion
    from maskmill.storage.plan.plan import load_plans
    from maskmill.storage.stores.base import open_store

    store = open_store(spec.root)
    plan = load_plans(store)
    columns = [ColumnVersion(store, name, digits) for name, digits in spec.fingerprints.items()]
    finished = set.intersection(*(version.committed() for version in columns))
    return {shard: plan.num_images_of(shard) for shard in range(plan.num_shards) if shard not in finished}


def without_idle(spec: RunSpec, shards: Iterable[int]) -> RunSpec:
    """The spec with the columns named that none of these shards lacks: workers don't load their models."""
    from maskmill.storage.dataset.columns import ColumnVersion
    from maskmill.storage.stores.base import open_store

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
    from maskmill.storage.plan.plan import load_plans
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.foreign.boxes import check_boxes, read_given_boxes

    assert spec.boxes is not None and spec.boxes.file is not None
    boxes = read_given_boxes(spec.boxes.file, min_score=spec.boxes.min_score)
    return check_boxes(boxes, load_plans(open_store(spec.root)))


def annotate_shards(
    spec: RunSpec,
    config: RunConfig,
    shards: Mapping[int, int],
    on_tally: Callable[[Tally], None],
    *,
    build: Callable[[RunSpec], Stages] | None = None,
) -> Annotated:
    """Ingests and annotates `shards` on a pool of Ray workers; returns when each is committed or given up.

    Args:
        build: makes a worker's stages where they are no models: workers then take a CPU each, wherever.

    Raises:
        InputError: a file of boxes that is of no picture of the dataset.
        ClusterError: no cluster.
        RunStopped: an error in our code, or workers that cannot start; what is committed stays.
        LeaseLost: this driver was silent for so long that others count it as dead; likewise.
    """
    if not shards:
        return Annotated()
    spec = without_idle(spec, shards)
    if spec.boxes is not None:
        watcher().note(boxes_told(spec))
    from maskmill.flows.report.observe import observed
    from maskmill.flows.services import cluster
    from maskmill.flows.services import state as up_state
    from maskmill.storage.drivers.lease import check_lease
    from maskmill.storage.stores.base import open_store

    store = open_store(spec.root)

    with cluster.connected(up_state.ray_address(config.run.ray_address)):
        from maskmill.workers.pool.pool import (
            run_pool,  # imports Ray, which reads its environment then: after `connected`
        )

        crew = cluster.plan_crew(config) if build is None else cluster.cpu_crew(config)
        events = run_pool(
            spec,
            shards,
            resources=crew.resources,
            num_workers=cluster.most_workers(config, crew),
            max_attempts=config.run.max_attempts,
            deadline_s=config.run.deadline_s,
            make_actor=cluster.worker_source(spec, crew.resources, build),
            autoscale=config.run.autoscale,
        )
        follower = _Follower(shards, on_tally)
        try:
            with observed(config, spec.root, shards, run_name()) as observe:
                for event in events:
                    check_lease(store)
                    follower.see(event)
                    observe(event)
        finally:
            events.close()
            cluster.dismiss_warm()
        return follower.outcome()


def run_name() -> str:
    """What metrics and logs call this run: Prefect's name of it, or this process."""
    runtime = sys.modules.get("prefect.runtime")
    name = runtime.flow_run.name if runtime is not None else None
    return str(name or f"process-{os.getpid()}")


def export_generation(
    dataset: str, which: int | str | None, config: RunConfig, destination: str
) -> ExportReport:
    """Writes a generation (None: the latest) out as self-contained files, by [export].

    Raises:
        DatasetError: there is no generation yet.
        ExportError: the destination holds something else.
    """
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.exports import export

    store = open_store(dataset)
    return export(
        store,
        generation_of(dataset, which),
        destination,
        progress=watcher().count,
        **dataclasses.asdict(config.export),
    )


def generation_of(dataset: str, which: int | str | None = None) -> Generation:
    """A generation by number or tag, or the latest.

    Raises:
        DatasetError: there is none yet, or no such tag.
        ObjectNotFound: there is none of this number.
    """
    from maskmill.storage.dataset.tags import find_generation
    from maskmill.storage.stores.base import open_store

    return find_generation(open_store(dataset), which)


def contact_sheet(dataset: str, number: int | None = None) -> bytes:
    """A PNG of a sample of a generation's images with their masks."""
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.pictures.render import contact_sheet

    return contact_sheet(open_store(dataset), generation_of(dataset, number))


def image_picture(dataset: str, key: str, shard: int, number: int) -> bytes:
    """A PNG of one image of a generation with its masks."""
    from maskmill.storage.stores.base import open_store
    from maskmill.workers.pictures.render import image_picture

    return image_picture(open_store(dataset), generation_of(dataset, number), key, shard)


def make_report(
    dataset: str, annotated: Annotated, published: Published, exported: str | None, *, seconds: float
) -> RunReport:
    """Joins what the steps found."""
    check = published.check
    return RunReport(
        dataset=dataset,
        generation=published.generation,
        published=published.is_new,
        images=check.images,
        annotated=check.annotated,
        rejected=check.rejected,
        missing=check.missing,
        duplicated=check.duplicated,
        damaged=check.damaged,
        masks=published.masks,
        new_images=annotated.new_images,
        rejects=published.rejects,
        failed_shards=annotated.failed_shards,
        problems=check.problems,
        seconds=round(seconds, 3),
        images_per_s=round(annotated.new_images / annotated.seconds, 3) if annotated.seconds else 0.0,
        export=exported,
    )


class _Follower:
    """Turns the pool's events into tallies, notes and the step's outcome."""

    def __init__(self, shards: Mapping[int, int], on_tally: Callable[[Tally], None]) -> None:
        self._tally = Tally(images_total=sum(shards.values()), shards_total=len(shards))
        self._on_tally = on_tally
        self._ready_s: float | None = None
        self._failed: dict[int, str] = {}
        self._new_images = 0
        self._noted: set[str] = set()

    def see(self, event: PoolEvent) -> None:
        from maskmill.workers.run.events import Progress, ShardDone, ShardFailed, WorkerLost

        match event:
            case Progress():
                self._progress(event)
            case ShardDone(report=report):
                self._note(report.notes)
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

    def outcome(self) -> Annotated:
        seconds = time.monotonic() - self._ready_s if self._ready_s is not None else 0.0
        return Annotated(new_images=self._new_images, failed_shards=self._failed, seconds=seconds)

    def _progress(self, event: Progress) -> None:
        if self._ready_s is None and event.workers_ready:
            self._ready_s = time.monotonic()
        self._tally = dataclasses.replace(
            self._tally,
            images_done=event.images_done,
            masks_done=event.masks_done,
            num_rejects=event.num_rejects,
            shards_done=event.shards_done,
            workers_ready=event.workers_ready,
            elapsed_s=time.monotonic() - self._ready_s if self._ready_s is not None else 0.0,
        )
        self._on_tally(self._tally)
