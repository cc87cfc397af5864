"""The stages of a run, built once per worker: models loaded once, decode and embedding shared.

Models load when first asked for; `build_stages` asks for those of columns that some shard lacks. A column's
stage comes from its `Column` (registry.py); everything else (rejects, tar, index, commit, retries, reading
back) comes by itself.

What it doesn't know: files, threads, commits (workers/shard/turn.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from maskmill.pipeline import segmenters
from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.machine.light_imports import import_torchvision
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.plan.sources import PlannedImage
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.fetch import bring_published
from maskmill.workers.run.dataset_models import bring
from maskmill.workers.run.spec import IMAGES, RunSpec
from maskmill.workers.run.work_settings import Resolved
from maskmill.workers.shard.next_shard import NextShard
from maskmill.workers.shard.warnings import Notes, listen
from maskmill.workers.stages import registry
from maskmill.workers.stages.base import Bench, Picture, Stage
from maskmill.workers.stages.guarded import GuardedSegmenter
from maskmill.workers.stages.shared import LazySegmenter, SharedEmbeddings


@dataclass(eq=False)
class Stages:
    """Everything a worker keeps between shards.

    Attributes:
        spec: of the run.
        store: the dataset's.
        plan: which source files are which keys of which shards, as far as it was written when last looked.
        stages: in the order they run.
        embeddings: what they share; None where nothing embeds.
        notes: warnings for people, taken by each shard's report; None where nobody collects them.
        device: the kind that models compute on, "cpu" where there are none.
        next_shard: what is taken in ahead of its turn.
    """

    spec: RunSpec
    store: ObjectStore
    plan: Plan
    stages: tuple[Stage, ...]
    embeddings: SharedEmbeddings | None = None
    notes: Notes | None = None
    device: str = "cpu"
    next_shard: NextShard = field(default_factory=NextShard)

    @property
    def work(self) -> Resolved:
        """How the worker shares its machine, nothing left open."""
        return self.spec.work.on(self.device)

    def version(self, column: str) -> ColumnVersion:
        """The column version that this run writes."""
        return ColumnVersion(self.store, column, self.spec.fingerprints[column])

    def planned(self, shard: int) -> tuple[PlannedImage, ...]:
        """A shard's images; a worker may be older than the plan that has them.

        Raises:
            maskmill.storage.errors.DatasetError: no plan has this shard.
        """
        if shard >= self.plan.num_shards:
            self.plan = load_plans(self.store)
        return self.plan.images(shard)

    def hold(self, pictures: Sequence[Picture]) -> None:
        """Says which pictures the stages are about to see."""
        if self.embeddings is not None:
            self.embeddings.hold(pictures)


def build_stages(spec: RunSpec) -> Stages:
    """Opens the dataset of a run and loads the models of its columns, but for idle ones.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        StorageError: the store cannot be read or has no plan.
    """
    notes = listen()
    segmenter = spec.segmenter
    if set(spec.fingerprints) > {IMAGES}:
        import_torchvision()
    if segmenter.threads is not None:
        import torch

        torch.set_num_threads(segmenter.threads)

    # The store, and the one segmenter that all stages share
    store = open_store(spec.root)
    bring(store, segmenter)
    bring_published(segmenter)
    embeddings = SharedEmbeddings(
        LazySegmenter(lambda: GuardedSegmenter(segmenters.load_segmenter(segmenter)))
    )

    # A stage a column, in the order they are made
    stages = [
        column.stage(
            Bench(
                settings=spec.settings,
                fingerprint=spec.fingerprints[column.name],
                segmenter=embeddings,
                plan=lambda: load_plans(store),
                keep_embedding=embeddings.keep,
            )
        )
        for column in registry.COLUMNS
        if column.stage is not None and column.name in spec.fingerprints
    ]
    for stage in stages:
        if stage.column not in spec.idle:
            stage.prepare()
    device = choose_device(segmenter.device).type if set(spec.fingerprints) > {IMAGES} else "cpu"
    return Stages(spec, store, load_plans(store), tuple(stages), embeddings, notes, device)
