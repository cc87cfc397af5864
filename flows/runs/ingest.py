"""The run `ingest`: `generate`'s first half, on machines without a GPU; as that, it runs beside anything.

With `embeddings.keep` it also embeds what it takes in, which needs the segmenter, and publishes a generation
of pictures and embeddings: people begin on empty pictures there (`maskmill browse`), SAM's assisted-manual
stage, and wait for no encoder.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from maskmill.flows.config import RunConfig
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import check_inputs, describe_run, pending_shards, plan_images
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.pipeline.settings.embeddings import OFF
from maskmill.storage.plan.plan import load_plans
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
    """

    dataset: str
    images: int
    shards: int
    new_images: int
    failed_shards: Mapping[int, str]
    seconds: float
    generation: int | None = None
    remarks: Mapping[str, int] = dataclasses.field(default_factory=dict)


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
    with driving(dataset):
        watcher().step("planning: listing and hashing the inputs")
        plan_images(dataset, inputs, config, limit)
        shards = pending_shards(spec)
        watcher().step(f"taking in {sum(shards.values())} images in {len(shards)} shards")
        done = annotate_shards(spec, config, shards, build=None if embeds else ingest_stages)
        if embeds:
            watcher().step("verifying and publishing")
            generation = publish_and_verify(spec, config, made_by="ingest", partial=True).generation

    plan = load_plans(open_store(dataset))
    return IngestReport(
        dataset=dataset,
        images=plan.num_images,
        shards=plan.num_shards,
        new_images=done.new_images,
        failed_shards=done.failed_shards,
        generation=generation,
        seconds=round(time.monotonic() - began, 1),
        remarks=done.remarks,
    )


def _embedding_spec(dataset: str, config: RunConfig) -> RunSpec:
    """Of `generate`'s run its pictures and their embeddings. Raises WeightsError."""
    spec = describe_run(dataset, config)
    wanted = {name: spec.fingerprints[name] for name in (IMAGES, EMBEDDINGS)}
    kinds = ("ingest", "embeddings", "segmenter")
    sections = Sections({name: spec.settings[name] for name in kinds if name in spec.settings})
    return dataclasses.replace(spec, fingerprints=wanted, settings=sections)
