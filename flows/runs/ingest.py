"""The run `ingest`: `generate`'s first half, on machines without a GPU; as that, it runs beside anything."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import check_inputs
from maskmill.flows.runs.steps.planning_ahead import feed_of, planning_ahead
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import IMAGES


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What came of it.

    Attributes:
        images, shards: planned in the whole dataset.
        new_images: taken in or rejected now.
        failed_shards: shard -> why it was given up.
        seconds: of the whole.
        remarks: what is worth a look -> images taken in now that it is true of.
        rejects: reason -> images of the dataset that the plan left out, and of those looked at now.
    """

    dataset: str
    images: int
    shards: int
    new_images: int
    failed_shards: Mapping[int, str]
    seconds: float
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rejects: Mapping[str, int] = dataclasses.field(default_factory=dict)


def ingest(
    dataset: str, inputs: Sequence[str], config: RunConfig, *, limit: int | None = None
) -> IngestReport:
    """Plans the inputs and takes in what isn't yet, without annotating it.

    Args:
        dataset: its root; made if it isn't there.
        inputs: as `generate` takes them.
        config: [ingest] and [run] count; the settings that `generate` will have.
        limit: the most images the dataset should hold; None is all.

    Raises:
        InputError, StorageError, ClusterError, RunStopped: with the cause and the cure.
    """
    from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages

    began = time.monotonic()
    check_inputs(dataset, inputs)
    spec = ingest_spec(dataset, config.ingest, config.run.work())

    with driving(dataset), planning_ahead(dataset, inputs, config, limit) as ahead:
        watcher().step("planning: listing and hashing the inputs")
        ahead.wait(spec)
        feed = feed_of(spec, ahead)
        watcher().step(f"taking in {sum(feed.shards.values())} images in {len(feed.shards)} shards")
        done = annotate_shards(spec, config, feed, build=ingest_stages)
        ahead.tell()

    store = open_store(dataset)
    plan = load_plans(store)
    return IngestReport(
        dataset=dataset,
        images=plan.num_images,
        shards=plan.num_shards,
        new_images=done.new_images,
        failed_shards=done.failed_shards,
        seconds=round(time.monotonic() - began, 1),
        remarks=done.remarks,
        rejects=_rejects(ColumnVersion(store, IMAGES, spec.fingerprints[IMAGES]), plan, feed.shards),
    )


def _rejects(version: ColumnVersion, plan: Plan, shards: Collection[int]) -> dict[str, int]:
    """Images left out by reason: by the plan, and in the records of these shards."""
    reasons = Counter(plan.rejects_by_reason)
    for _, record in version.read_shards(set(shards) & version.committed()):
        if isinstance(record, CommitRecord):
            reasons.update(reject.reason for reject in record.rejects)
    return dict(reasons.most_common())
