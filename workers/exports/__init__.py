"""Datasets in other people's formats: one file a format.

`sa1b`: self-contained SA-1B tars, jpg + json. `coco`: one COCO JSON and a folder of photographs. Both are
whole or resumable, and closed by an `export.json`; see report.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from workers.exports.report import ExportedFile, ExportError, ExportReport

if TYPE_CHECKING:
    from storage.generations import Generation
    from storage.objects import ObjectStore

ExportFormat = Literal["sa1b", "coco"]
FORMATS: tuple[ExportFormat, ...] = ("sa1b", "coco")

__all__ = ["FORMATS", "ExportError", "ExportFormat", "ExportReport", "ExportedFile", "export"]


def export(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    *,
    format: ExportFormat = "sa1b",
    images: bool = True,
    max_images: int = 1000,
    max_bytes: int = 1 << 30,
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Writes a generation to a local folder or s3:// prefix, in one of `FORMATS`.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: empty, new, or one where the same export was begun.
        format: "sa1b" or "coco".
        images: COCO only: also write the photographs; SA-1B tars always hold them.
        max_images: SA-1B only: images in a tar.
        max_bytes: SA-1B only: size of a tar.
        progress: called with the number of images written so far.

    Returns:
        What was written.

    Raises:
        ValueError: an unknown format, SA-1B without images, or a limit below 1.
        ExportError: the destination holds something else.
        storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    from workers.exports.coco import export_coco
    from workers.exports.sa1b import export_sa1b

    if format == "coco":
        return export_coco(store, generation, destination, images=images, progress=progress)
    if format != "sa1b":
        raise ValueError(f"format={format!r} is unknown: use one of {', '.join(FORMATS)}")
    if not images:
        raise ValueError("SA-1B tars always hold their images: leave images on, or export as coco")
    return export_sa1b(
        store, generation, destination, max_images=max_images, max_bytes=max_bytes, progress=progress
    )
