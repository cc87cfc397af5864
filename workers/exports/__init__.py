"""Datasets in other people's formats: one file a format.

`sa1b`: self-contained SA-1B tars, jpg + json. `coco`: one COCO JSON and a folder of photographs. `lvis`: the
same with LVIS's fields. `yolo`: Ultralytics' segmentation data, photographs and polygons. `hf`: Parquet for
Hugging Face's `datasets`. All are whole or resumable, and closed by an `export.json`; see report.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from maskmill.workers.exports.report import ExportedFile, ExportError, ExportReport

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

ExportFormat = Literal["sa1b", "coco", "lvis", "yolo", "hf"]
FORMATS: tuple[ExportFormat, ...] = ("sa1b", "coco", "lvis", "yolo", "hf")

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
    column: str = "masks",
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Writes a generation to a local folder or s3:// prefix, in one of `FORMATS`.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: empty, new, or one where the same export was begun.
        format: one of `FORMATS`.
        images: False, for COCO and LVIS only, leaves the photographs out.
        max_images: SA-1B and Hugging Face: images in a file.
        max_bytes: SA-1B and Hugging Face: size of a file.
        column: that has the masks: "masks", or an imported one.
        progress: called with the number of images written so far.

    Returns:
        What was written.

    Raises:
        ValueError: an unknown format, another than COCO without images, or a limit below 1.
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    from maskmill.workers.exports.coco import export_coco
    from maskmill.workers.exports.hf import export_hf
    from maskmill.workers.exports.sa1b import export_sa1b
    from maskmill.workers.exports.yolo import export_yolo

    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown: use one of {', '.join(FORMATS)}")
    if format in ("coco", "lvis"):
        return export_coco(
            store,
            generation,
            destination,
            images=images,
            column=column,
            lvis=format == "lvis",
            progress=progress,
        )
    if not images:
        raise ValueError(f"{format} always holds its images: leave images on, or export as coco")
    if format == "yolo":
        return export_yolo(store, generation, destination, column=column, progress=progress)
    write = export_hf if format == "hf" else export_sa1b
    return write(
        store,
        generation,
        destination,
        max_images=max_images,
        max_bytes=max_bytes,
        column=column,
        progress=progress,
    )
