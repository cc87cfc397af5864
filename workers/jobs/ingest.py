"""Workers that only take images in: no model, no GPU, one CPU each."""

from __future__ import annotations

from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import Sections, fingerprints
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.reading_rules import with_rules
from maskmill.workers.run.spec import IMAGES, RunSpec
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.images import image_facts


def ingest_spec(root: str, ingest: IngestSettings, work: WorkSettings | None = None) -> RunSpec:
    """A run that makes the images column alone, the one that any run of these settings makes.

    Args:
        root: the dataset's.
        ingest: how images are taken in.
        work: how a worker shares its machine; None is the defaults.
    """
    ingest = with_rules(open_store(root), ingest)
    return RunSpec(
        root=root,
        fingerprints=fingerprints({IMAGES: image_facts(ingest)}),
        settings=Sections({"ingest": ingest}),
        work=work if work is not None else WorkSettings(),
    )


def ingest_stages(spec: RunSpec) -> Stages:
    """A worker's stages: none, so that a turn at a shard ends with its images."""
    store = open_store(spec.root)
    return Stages(spec, store, load_plans(store), ())
