"""The run `ingest`: `generate`'s first half, on machines without a GPU; as that, it runs beside anything.

With `embeddings.keep` it also embeds what it takes in, which needs the segmenter, and publishes a generation
of pictures and embeddings: people begin on empty pictures there (`maskmill browse`), SAM's assisted-manual
stage, and wait for no encoder.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import check_inputs, describe_run
from maskmill.flows.runs.steps.planning_ahead import feed_of, planning_ahead
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.pipeline.settings.embeddings import OFF
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import IMAGES, Sections
from maskmill.workers.run.spec import RunSpec
from maskmill.workers.stages.embeddings import EMBEDDINGS


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What came of it.

    Attributes:
        images, shards: planned in the whole dataset.
        new_images: taken in or rejected now.
        failed_shards: shard -> why it was given up.
        generation: with the embeddings; None where none are kept.
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
    generation: int | None = None
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rejects: Mapping[str, int] = dataclasses.field(default_factory=dict)


def ingest(
    dataset: str, inputs: Sequence[str], config: RunConfig, *, limit: int | None = None
) -> IngestReport:
    """Plans the inputs and takes in what isn't yet, without annotating it.

    Args:
        dataset: its root; made if it isn't there.
        inputs: as `generate` takes them.
        config: [ingest] and [run] count; the settings that `generate` will have. [embeddings] and
            [segmenter], where embeddings are to be kept.
        limit: the most images the dataset should hold; None is all.

    Raises:
        InputError, StorageError, ClusterError, RunStopped, WeightsError: with the cause and the cure.
    """
    from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages

    began = time.monotonic()
    check_inputs(dataset, inputs)
    embeds = config.embeddings.keep != OFF
    spec = (
        _embedding_spec(dataset, config) if embeds else ingest_spec(dataset, config.ingest, config.run.work())
    )

    generation = None
    with driving(dataset), planning_ahead(dataset, inputs, config, limit) as ahead:
        watcher().step("planning: listing and hashing the inputs", "file")
        ahead.wait(spec)
        feed = feed_of(spec, ahead)
        watcher().step(f"taking in {sum(feed.shards.values())} images in {len(feed.shards)} shards")
        done = annotate_shards(spec, config, feed, build=None if embeds else ingest_stages)
        ahead.tell()
        if embeds:
            watcher().step("verifying and publishing")
            generation = publish_and_verify(spec, config, made_by="ingest", partial=True).generation

    store = open_store(dataset)
    plan = load_plans(store)
    return IngestReport(
        dataset=dataset,
        images=plan.num_images,
        shards=plan.num_shards,
        new_images=done.new_images,
        failed_shards=done.failed_shards,
        generation=generation,
        seconds=round(time.monotonic() - began, 1),
        remarks=done.remarks,
        rejects=_rejects(ColumnVersion(store, IMAGES, spec.fingerprints[IMAGES]), plan, feed.shards),
    )


def _embedding_spec(dataset: str, config: RunConfig) -> RunSpec:
    """Of `generate`'s run its pictures and their embeddings. Raises WeightsError."""
    spec = describe_run(dataset, config)
    wanted = {name: spec.fingerprints[name] for name in (IMAGES, EMBEDDINGS)}
    kinds = ("ingest", "embeddings", "segmenter")
    sections = Sections({name: spec.settings[name] for name in kinds if name in spec.settings})
    return dataclasses.replace(spec, fingerprints=wanted, settings=sections)


def _rejects(version: ColumnVersion, plan: Plan, shards: Collection[int]) -> dict[str, int]:
    """Images left out by reason: by the plan, and in the records of these shards."""
    reasons = Counter(plan.rejects_by_reason)
    for _, record in version.read_shards(set(shards) & version.committed()):
        if isinstance(record, CommitRecord):
            reasons.update(reject.reason for reject in record.rejects)
    return dict(reasons.most_common())
