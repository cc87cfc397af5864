"""A generation as LVIS has it: COCO's file with the fields that LVIS has beyond COCO's; see coco.py.

An imported column keeps its categories and their ids; its pictures are called as the export calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskmill.workers.exports.coco import write_annotations

if TYPE_CHECKING:
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport


def write(task: ExportTask) -> ExportReport:
    """Writes `annotations.json` and, if wanted, the photographs; see `WriteExport`."""
    return write_annotations(task, lvis=True)
