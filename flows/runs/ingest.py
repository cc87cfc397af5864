"""The run `ingest`: `generate`'s first half, on machines without a GPU; as that, it runs beside anything."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import check_inputs, pending_shards, plan_images
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What came of it.

    Attributes:
        images, shards: planned in the whole dataset.
        new_images: taken in or rejected now.
        failed_shards: shard -> why it was given up.
        seconds: of the whole.
        remarks: what is worth a look -> images taken in now that it is true of.
    """

    dataset: str
    images: int
    shards: int
    new_images: int
    failed_shards: Mapping[int, str]
    seconds: float
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)


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

    with driving(dataset):
        watcher().step("planning: listing and hashing the inputs", "file")
        plan_images(dataset, inputs, config, limit)
        shards = pending_shards(spec)
        watcher().step(f"taking in {sum(shards.values())} images in {len(shards)} shards")
        done = annotate_shards(spec, config, shards, build=ingest_stages)

    plan = load_plans(open_store(dataset))
    return IngestReport(
        dataset=dataset,
        images=plan.num_images,
        shards=plan.num_shards,
        new_images=done.new_images,
        failed_shards=done.failed_shards,
        seconds=round(time.monotonic() - began, 1),
        remarks=done.remarks,
    )
