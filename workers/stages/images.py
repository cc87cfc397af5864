"""The images column: photographs as they were taken in. No stage makes it: a turn at a shard does.

Its index has a row per picture, made where the bytes are decoded anyway; what was taken in before there was
one has none.
"""

from __future__ import annotations

from maskmill.storage.shards.index import IndexField
from maskmill.workers.run.columns import IMAGES, Column, ColumnFacts, Sections
from maskmill.workers.run.ingest_settings import IngestSettings

INDEX = (
    IndexField("key", "string"),
    IndexField("image_id", "int64"),
    IndexField("width", "int32"),
    IndexField("height", "int32"),
    IndexField("sha256", "string"),
    IndexField("phash", "string", nullable=True),
)
"""width, height: pixels, as it is to be seen; sha256: of the source's bytes; phash: pipeline/phash.py."""


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
