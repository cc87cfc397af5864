"""The images column: photographs as they were taken in. No stage makes it: a turn at a shard does."""

from __future__ import annotations

from maskmill.workers.run.columns import IMAGES, Column, ColumnFacts, Sections
from maskmill.workers.run.ingest_settings import IngestSettings


def image_facts(ingest: IngestSettings) -> ColumnFacts:
    """What the fingerprint of `images` is made of."""
    return ColumnFacts(settings=ingest.facts(), revision=ingest.rules_in_force)


def _facts(settings: Sections) -> ColumnFacts:
    return image_facts(settings.of(IngestSettings))


COLUMN = Column(
    name=IMAGES,
    sections={"ingest": IngestSettings},
    is_made=lambda settings: True,
    resolved=lambda settings: {"ingest": settings.of(IngestSettings)},
    facts=_facts,
)
