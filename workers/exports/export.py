"""A generation in one of the formats: the way in, whatever the format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskmill.workers.exports.formats import ExportChoices, ExportTask, Progress, format_named

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.report import ExportReport


def export(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    *,
    progress: Progress | None = None,
    **choices: Any,
) -> ExportReport:
    """Writes a generation to a local folder or s3:// prefix, in one of `FORMATS`.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: empty, new, or one where the same export was begun.
        progress: called with the number of images written so far.
        choices: fields of `ExportChoices`: format, max_images, max_bytes, images, column,
            polygons.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ValueError: choices that cannot be; see `ExportChoices`.
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    chosen = ExportChoices(**choices)
    write = format_named(chosen.format).writer()
    return write(ExportTask(store, generation, destination, chosen, progress))
