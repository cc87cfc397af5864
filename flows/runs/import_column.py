"""The run `import`: other people's annotations into the dataset as a column. The writer's lock is held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.flows.config import load_config
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.planning import plan_images
from maskmill.storage.clock import now_utc
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.workers.jobs.import_column import ImportReport


def import_column(
    dataset: str,
    files: Sequence[Path],
    *,
    format: str,
    column: str,
    images: Sequence[str] | None = None,
    by: str | None = None,
) -> ImportReport:
    """Takes annotations in, and publishes them beside the dataset's masks.

    Args:
        dataset: its root.
        files: COCO's JSON, or SA-1B's JSON files, tars or folders.
        format: "coco" or "sa1b".
        column: its name in the dataset.
        images: where the images are, if they are not in the dataset yet.
        by: the person who made the masks, so that they count as reviews; None: nobody knows who did.

    Raises:
        WriterBusy: another writer works on the dataset.
        InputError: a file or an image cannot be used.
    """
    from maskmill.workers.jobs.import_column import import_annotations

    def plan() -> None:
        """Plans the images that the annotations come with, if any."""
        if images:
            watcher().step("planning the images", "file")
            plan_images(dataset, images, load_config(), None)
        watcher().step("importing", "image")

    with writing(dataset, "import", makes=bool(images)):
        watcher().step("reading the annotations")
        return import_annotations(
            open_store(dataset),
            list(files),
            format=format,
            column=column,
            created_utc=now_utc(),
            by=by,
            prepare=plan,
            progress=watcher().count,
        )
