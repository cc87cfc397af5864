"""Workers that only take images in: no model, no GPU, one CPU each."""

from __future__ import annotations

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import open_store
from maskmill.workers.run.columns import fingerprints, image_facts
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.reading_rules import with_rules
from maskmill.workers.run.spec import IMAGES, RunSpec
from maskmill.workers.stages.build import Stages


def ingest_spec(
    root: str, ingest: IngestSettings, *, decode_threads: int = 2, encode_threads: int = 1
) -> RunSpec:
    """A run that makes the images column alone, the one that any run of these settings makes."""
    ingest = with_rules(open_store(root), ingest)
    return RunSpec(
        root=root,
        ingest=ingest,
        masks=MaskSettings(),
        segmenter=SegmenterSettings(),
        fingerprints=fingerprints({IMAGES: image_facts(ingest)}),
        decode_threads=decode_threads,
        encode_threads=encode_threads,
    )


def ingest_stages(spec: RunSpec) -> Stages:
    """A worker's stages: none, so that a turn at a shard ends with its images."""
    store = open_store(spec.root)
    return Stages(spec, store, load_plans(store), ())
