"""The run `export`: a generation as self-contained files that know nothing of maskmill.

It only reads the dataset, so it holds nothing of it; a destination that was left half written is gone on
with.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from maskmill.flows.config import ExportSettings
from maskmill.flows.report.report import watcher
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export

if TYPE_CHECKING:
    from maskmill.workers.exports.report import ExportReport


def export_generation(
    dataset: str, which: int | str | None, settings: ExportSettings, destination: str
) -> ExportReport:
    """Writes a generation out.

    Args:
        dataset: its root.
        which: a number or tag; None is the latest.
        settings: format, what belongs to it, and how large files may be.
        destination: a new or empty folder, or s3://bucket/prefix.

    Raises:
        DatasetError: there is no generation yet.
        ExportError: the destination holds something else.
    """
    store = open_store(dataset)
    return export(
        store,
        find_generation(store, which),
        destination,
        progress=watcher().count,
        **dataclasses.asdict(settings),
    )
