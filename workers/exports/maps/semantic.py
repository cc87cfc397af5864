"""Class maps: a PNG for each image whose pixels are class numbers, as trainers of semantic segmentation read.

    classes.json     {"0": "background", "1": "cat", ...}
    masks/sa_1.png   images/sa_1.jpg                            (masks_train/, ... of splits)

How it works: 0 is no mask, a class is its number in classes.json: of those that are listed, else of those
that turn up, in that order; with `ids_of` an import's category ids. PNGs are 8 bits up to number 255 and 16
beyond, all of an export alike: where classes outgrow a byte on the way, the PNGs before are written again at
the end. Where masks overlap the smaller lies on the larger (layers.py).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import Selection, class_of
from maskmill.workers.exports.given import KeptEntries, given_categories
from maskmill.workers.exports.maps.layers import HIDDEN, map_of_masks
from maskmill.workers.exports.maps.writing import MapFormat, MapOfImage, export_maps, map_name, png_of

if TYPE_CHECKING:
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.formats import ExportTask
    from maskmill.workers.exports.report import ExportReport
    from maskmill.workers.exports.samples import ExportImage
    from maskmill.workers.foreign.annotations import Id

MAX_CLASSES = 2**16 - 1
NARROW = 2**8 - 1


def write(task: ExportTask) -> ExportReport:
    """Writes PNGs of classes, their names and, if wanted, the photographs; see `WriteExport`.

    Raises:
        InputError: more classes than a PNG has numbers, or an import's that it can't have.
    """
    choices = task.choices
    numbers = dict(zip(choices.classes, range(1, len(choices.classes) + 1), strict=True))
    if choices.ids_of:
        KeptEntries(task.store, task.generation, choices.ids_of)  # says so where there is no such import
        numbers = numbers or _numbers_of(given_categories(task.generation, choices.ids_of), choices.ids_of)
    selection = Selection(task.store, task.generation, choices)
    return export_maps(task, selection, _Semantic(numbers))


def _numbers_of(given: Mapping[Id, str], column: str) -> dict[str, int]:
    """An import's class numbers by name; ids that are words get the next ones, as they turn up.

    Raises:
        InputError: an id that isn't a pixel's: 0 is no mask.
    """
    numbers = {name: id_ for id_, name in given.items() if isinstance(id_, int)}
    wrong = next((f"{name!r} is {id_}" for name, id_ in numbers.items() if not 0 < id_ <= MAX_CLASSES), None)
    if wrong is not None:
        raise InputError(
            f"--ids-of {column}: its category {wrong}, but a pixel's class is 1 to {MAX_CLASSES:,} (0 is no "
            "mask): number the classes with --classes in place of it, or leave it off"
        )
    return numbers


class _Semantic(MapFormat):
    """See the file's header."""

    folder = "masks"

    def __init__(self, numbers: Mapping[str, int]) -> None:
        """`numbers` by class; others get theirs after all of these. Raises InputError for too many."""
        super().__init__()
        self._numbers, self._most = dict(numbers), max((0, *numbers.values()))
        self._narrow: list[str] = []
        _check_number(self._most)

    @property
    def _is_wide(self) -> bool:
        return self._most > NARROW

    def map_of(self, image: ExportImage) -> MapOfImage:
        """See `MapFormat`."""
        rows = image.record["annotations"]
        ids = range(1, len(rows) + 1)
        map_HW = map_of_masks(image, ids)
        seen = int(np.count_nonzero(np.bincount(map_HW.ravel(), minlength=len(rows) + 1)[1:]))
        if seen < len(rows):
            self.left_out[HIDDEN] += len(rows) - seen
        numbers = [0, *(self._number_of(class_of(row) or OBJECT) for row in rows)]
        if self._is_wide:
            return MapOfImage(np.array(numbers, np.uint16)[map_HW], seen)
        self._narrow.append(map_name(self.folder, image))
        return MapOfImage(np.array(numbers, np.uint8)[map_HW], seen)

    def _number_of(self, name: str) -> int:
        """A class's number; a new one where it turns up first. Raises InputError where there is none left."""
        if name not in self._numbers:
            self._most += 1
            self._numbers[name] = self._most
            _check_number(self._most)
        return self._numbers[name]

    def finish(self, target: ObjectStore) -> int:
        """See `MapFormat`: PNGs from before the classes outgrew a byte get two, like the others."""
        grown = 0
        for name in self._narrow if self._is_wide else ():
            narrow = target.read(name)
            wide = png_of(np.asarray(Image.open(io.BytesIO(narrow))).astype(np.uint16))
            target.put(name, wide)
            grown += len(wide) - len(narrow)
        return grown

    def files(self) -> dict[str, bytes]:
        """See `MapFormat`."""
        named = {"0": "background", **{str(number): name for name, number in self._numbers.items()}}
        return {"classes.json": (json.dumps(named, indent=1, ensure_ascii=False) + "\n").encode()}


def _check_number(number: int) -> None:
    """Raises InputError where a PNG has no such number."""
    if number > MAX_CLASSES:
        raise InputError(
            f"more than {MAX_CLASSES:,} classes, the numbers of a PNG: list those wanted (--classes)"
        )
