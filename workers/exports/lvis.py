"""A generation as LVIS has it: COCO's file with the fields that LVIS has beyond COCO's; see coco.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskmill.workers.exports.coco import write_annotations

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices, Progress
    from maskmill.workers.exports.report import ExportReport


def write(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    choices: ExportChoices,
    progress: Progress | None,
) -> ExportReport:
    """Writes `annotations.json` and, if wanted, the photographs; see `coco.write`.

    Raises:
        ValueError: a column that was imported: it is exported in the words it came in.
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    if choices.column != "masks":
        raise ValueError(f'column={choices.column!r} is exported in the words it came in: use format="coco"')
    return write_annotations(store, generation, destination, choices, progress, lvis=True)
