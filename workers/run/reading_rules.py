"""Which rules of reading files a dataset keeps: those that its images were taken in by.

Rules improve (`INGEST_REVISION`), and each set of them has its own fingerprint. A dataset that was begun
before goes on by its own, so that nothing of it is made again unasked; `ingest.rules` says otherwise.
"""

from __future__ import annotations

import dataclasses

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.run.ingest_settings import INGEST_REVISION, IngestSettings

_IMAGES = "images"


def with_rules(store: ObjectStore, ingest: IngestSettings) -> IngestSettings:
    """The settings with their rules said: given ones, or the newest that the dataset has images of, or the
    newest there are.

    Args:
        store: the dataset's.
        ingest: as configured.

    Raises:
        maskmill.storage.errors.StorageError: the store can't be listed.
    """
    if ingest.rules is not None:
        return ingest
    for rules in range(INGEST_REVISION, 1, -1):
        if _has_images(store, ingest, rules):
            return dataclasses.replace(ingest, rules=rules)
    begun = 1 if _has_images(store, ingest, 1) else INGEST_REVISION
    return dataclasses.replace(ingest, rules=begun)


def _has_images(store: ObjectStore, ingest: IngestSettings, rules: int) -> bool:
    digits = fingerprint(ingest.facts(), weights=None, revision=rules, inputs={})
    commits = store.list(f"{ColumnVersion(store, _IMAGES, digits).folder}/commits/")
    return next(iter(commits), None) is not None
