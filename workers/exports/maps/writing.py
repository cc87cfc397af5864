"""What the formats of maps share: photographs, a PNG for each, a report; their own files come last.

images/sa_1.jpg     <maps>/sa_1.png     <maps>_train/sa_1.png where splits are asked for
"""

from __future__ import annotations

import hashlib
import io
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.chosen.selection import Selection
from maskmill.workers.exports.report import ExportedFile, ExportReport, begin, finish, plan_of, refuse_late
from maskmill.workers.exports.samples import ExportImage, count_unannotated, source_options
from maskmill.workers.reading.survey import count_rejects

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportTask

PICTURES = "images"


@dataclass(frozen=True)
class MapOfImage:
    """An image's map: uint8[H, W], uint16[H, W] or uint8[H, W, 3], and how many masks are in it.

    A format without maps has None, and says its masks in its files.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None
    num_masks: int


class MapFormat(ABC):
    """A format of maps, for one export.

    Attributes:
        folder: of the PNGs; a split's name follows it.
        left_out: reason -> masks that no map shows.
    """

    folder: str

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()

    @abstractmethod
    def map_of(self, image: ExportImage) -> MapOfImage:
        """The map of an image. Raises DamagedObject."""

    def finish(self, target: ObjectStore) -> int:
        """What is left to do to the PNGs once all images were seen; the bytes that they grew by."""
        return 0

    @abstractmethod
    def files(self) -> Mapping[str, bytes]:
        """What is written beside the PNGs, by name, once all images were seen."""


def export_maps(task: ExportTask, selection: Selection, maps: MapFormat) -> ExportReport:
    """Writes a generation in a format of maps.

    Raises:
        ExportError: the destination holds something else.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    store, generation, choices = task.store, task.generation, task.choices
    options = {**source_options(generation, choices), **selection.options()}
    options |= {} if choices.images else {"images": False}
    plan = plan_of(choices.format, store, generation, options)
    target, started_s = open_store(task.destination), time.monotonic()
    complete = begin(target, plan)
    if complete is not None:
        return complete

    num_images = num_masks = size_bytes = 0
    for num_images, image in enumerate(selection.images(pictures=choices.images), 1):
        found = maps.map_of(image)
        num_masks += found.num_masks
        size_bytes += _put_image(target, maps.folder, image, found, choices.images)
        if task.progress is not None:
            task.progress(num_images)

    size_bytes += maps.finish(target)

    # What stands beside the maps, once all images were seen
    files = []
    for name, data in maps.files().items():
        target.put(name, data)
        files.append(
            ExportedFile(
                name=name,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                num_images=num_images,
                num_masks=num_masks,
            )
        )
    reviewed = selection.reviewed()
    report = ExportReport(
        format=choices.format,
        destination=target.root,
        generation=generation.number,
        num_images=num_images,
        num_masks=num_masks,
        rejects=count_rejects(store, generation),
        num_unannotated=count_unannotated(generation, choices, reviewed),
        files=tuple(files),
        size_bytes=size_bytes + sum(file.size_bytes for file in files),
        seconds=time.monotonic() - started_s,
        num_reviewed_images=reviewed.images,
        num_reviewed_masks=reviewed.masks,
        num_loose_images=num_images if choices.images else 0,
        left_out=dict(selection.left_out + maps.left_out),
    )
    refuse_late(store, generation, target)
    finish(target, plan, report)
    return report


def _put_image(
    target: ObjectStore, folder: str, image: ExportImage, found: MapOfImage, with_picture: bool
) -> int:
    """Writes an image's map, where it has one, and its photograph where that is wanted; the bytes written."""
    written = 0
    if found.pixels is not None:
        png = png_of(found.pixels)
        target.put(map_name(folder, image), png)
        written += len(png)
    if with_picture:
        target.put(f"{PICTURES}/{image.stem}.jpg", image.jpeg)
        written += len(image.jpeg)
    return written


def map_name(folder: str, image: ExportImage) -> str:
    """Of an image's PNG."""
    return f"{split_name(folder, image.split)}/{image.stem}.png"


def split_name(name: str, split: str) -> str:
    """A folder's or file's stem, with the split it is of."""
    return f"{name}_{split}" if split else name


def png_of(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """A PNG of exactly these values."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
