"""A sheet of the images that differ most between two generations: before and after, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b
from maskmill.storage.errors import DamagedObject
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.measure.compare import ImageChange
from maskmill.workers.pictures.render import Cell, draw_sheet, png_bytes, thumbnail
from maskmill.workers.reading.samples import AnnotatedSample, read_annotated

if TYPE_CHECKING:
    from PIL import Image

    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore


def difference_sheet(
    store: ObjectStore,
    before: Generation,
    after: Generation,
    largest: Sequence[ImageChange],
    *,
    num_images: int = 12,
    columns: int = 2,
    cell_px: int = 640,
) -> bytes:
    """A PNG: each image with its masks before (left) and after (right), and what changed in words.

    Args:
        store: the dataset.
        before, after: its generations.
        largest: the images to show, as `compare` gives them; only the first `num_images` are drawn.
        columns: cells in a row. cell_px: width of a cell, which holds two pictures.

    Raises:
        maskmill.storage.errors.DamagedObject: what is read is not what was written.
    """
    cells = []
    for change in largest[:num_images]:
        old, new = _find(store, before, change), _find(store, after, change)
        width = (cell_px - 6) // 2
        pictures = tuple(_picture(sample, width) for sample in (old, new) if sample is not None)
        words = (
            f"{change.added} added, {change.removed} removed, {change.changed} changed, {change.same} same"
        )
        cells.append(Cell(pictures, f"{change.key}   differs by {change.difference:.0%}", words))
    title = f"Generation {before.number} (left) and {after.number} (right): the largest differences"
    return png_bytes(draw_sheet(title, cells, columns, cell_px))


def _words(change: ImageChange) -> str:
    return f"{change.added} added, {change.removed} removed, {change.changed} changed, {change.same} same"


def _find(store: ObjectStore, generation: Generation, change: ImageChange) -> AnnotatedSample | None:
    for sample in read_annotated(store, generation, shards=[change.shard]):
        if sample.key == change.key:
            return sample
    return None


def _picture(sample: AnnotatedSample, width_px: int) -> Image.Image:
    return thumbnail(decode_image(sample.jpeg()), _annotated(sample), width_px, width_px)


def _annotated(sample: AnnotatedSample) -> AnnotatedImage:
    try:
        return from_sa1b(sample.record)
    except ValueError as exc:
        raise DamagedObject(f"masks of {sample.key}: {exc}") from exc
