"""Class maps: a PNG for each image whose pixels are class numbers, as trainers of semantic segmentation read.

    classes.json     {"0": "background", "1": "cat", ...}
    masks/sa_1.png   images/sa_1.jpg                            (masks_train/, ... of splits)

How it works: 0 is no mask, a class is its number in classes.json. PNGs are 8 bits up to 255 classes and 16
beyond; so classes are known before the first is written: those that are listed, else all that turn up in a
pass over the masks alone. Where masks overlap the smaller lies on the larger (layers.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.maps.layers import HIDDEN, map_of_masks
from maskmill.workers.exports.maps.writing import MapFormat, MapOfImage, export_maps

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportChoices, Progress
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage

MAX_CLASSES = 2**16 - 1


def write(
    store: ObjectStore,
    generation: Generation,
    destination: str,
    choices: ExportChoices,
    progress: Progress | None,
) -> ExportReport:
    """Writes PNGs of classes, their names and, if wanted, the photographs.

    Args:
        store: the dataset.
        generation: what of it to export.
        destination: an empty or new folder or s3:// prefix, or one where this export was begun.
        choices: what is taken, the column that has the masks, whether the photographs are written.
        progress: called with the number of images written so far.

    Returns:
        What was written; an export that is complete already is only reported.

    Raises:
        ExportError: the destination holds something else.
        InputError: more classes than a PNG has numbers.
        maskmill.storage.errors.DamagedObject: a shard or a source image is not what its record says.
    """
    names = choices.classes or _classes(Selection(store, generation, choices))
    if len(names) > MAX_CLASSES:
        raise InputError(
            f"{len(names)} classes are more than a PNG has numbers: list those wanted (--classes)"
        )
    selection = Selection(store, generation, choices)
    return export_maps(store, generation, destination, choices, progress, selection, _Semantic(names))


def _classes(selection: Selection) -> tuple[str, ...]:
    """All that turn up, in that order."""
    found: dict[str, None] = {}
    for image in selection.images(pictures=False):
        found.update(dict.fromkeys(class_of(row) or OBJECT for row in image.record["annotations"]))
    return tuple(found)


class _Semantic(MapFormat):
    """See the file's header."""

    folder = "masks"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._is_wide = len(names) > 255

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`."""
        rows = image.record["annotations"]
        ids = range(1, len(rows) + 1)
        map_HW = map_of_masks(image, ids)
        seen = int(np.count_nonzero(np.bincount(map_HW.ravel(), minlength=len(rows) + 1)[1:]))
        if seen < len(rows):
            self.left_out[HIDDEN] += len(rows) - seen
        numbers = [0, *(self._numbers[class_of(row) or OBJECT] for row in rows)]
        if self._is_wide:
            return MapOfImage(np.array(numbers, np.uint16)[map_HW], seen)
        return MapOfImage(np.array(numbers, np.uint8)[map_HW], seen)

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        named = {"0": "background", **{str(number): name for name, number in self._numbers.items()}}
        return {"classes.json": (json.dumps(named, indent=1, ensure_ascii=False) + "\n").encode()}
