"""The run `import` of an editor's files: edits become reviews by person, and the next generation has them."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.stores.open import open_store


def take_back(
    dataset: str,
    files: Sequence[Path],
    *,
    format: str,
    which: int | str | None = None,
    who: str | None = None,
) -> dict[str, Any]:
    """Takes edits back, and publishes a generation with them where there are any.

    Args:
        dataset: its root.
        files: the editor's.
        format: the editor's, as its export is called.
        which: the generation that the editor was given, where its files don't tell; None is the latest.
        who: made the edits, where the files don't tell; None is the name of this account.

    Returns:
        What came back: JSON values.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: a file that can't be used.
    """
    from maskmill.workers.reviews.column import publish_saves
    from maskmill.workers.tools import take_back as tools

    with writing(dataset, "import"):
        watcher().step("reading the edits", "image")
        store = open_store(dataset)
        found = tools.take_back(
            store,
            files,
            format=format,
            generation=find_generation(store, which),
            who=who or getpass.getuser(),
            created_utc=now_utc(),
            progress=watcher().count,
        )
        generation = publish_saves(store, created_utc=now_utc(), made_by="import")
        return {
            "pictures": dict(found.pictures),
            "masks": {what: count for what, count in found.masks.items() if count},
            "people": dict(found.people),
            "absent": found.absent,
            "generation": generation.number if generation is not None else None,
        }
