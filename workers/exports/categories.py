"""The categories of a COCO file: an import's with their ids, else "object"; then masks' labels or
names in the order they turn up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maskmill.workers.foreign.annotations import Id

OBJECT = "object"
FREQUENCIES = ((10, "r"), (100, "c"))
"""LVIS's: categories in at most so many images are rare, common; the others are frequent."""


class Categories:
    """Ids by name, from 1: 1 is "object", of masks that have no name, where no others are given.

    Args:
        given: names by id, of an import: its numbers stay, its words get the next numbers.
        listed: the classes there are, from 1; then no import's count, and "object" is one only if listed.
    """

    def __init__(self, given: Mapping[Id, str] | None = None, listed: Sequence[str] = ()) -> None:
        if listed:
            given = dict(enumerate(listed, 1))
        self._ids = (
            {name: id_ for id_, name in given.items() if isinstance(id_, int)} if given else {OBJECT: 1}
        )
        for id_, name in given.items() if given else ():
            if isinstance(id_, str):
                self._id_of(name)
        self._images: Counter[str] = Counter()
        self._instances: Counter[str] = Counter()

    def count(self, names: Iterable[str | None]) -> list[int]:
        """The categories of an image's masks, by their names; None is "object"."""
        told = [name if name is not None else OBJECT for name in names]
        self._instances.update(told)
        self._images.update(set(told))
        return [self._id_of(name) for name in told]

    def _id_of(self, name: str) -> int:
        """A name's id; a new one's is after all others'."""
        if name not in self._ids:
            self._ids[name] = max((0, *self._ids.values())) + 1
        return self._ids[name]

    def coco(self) -> list[dict[str, Any]]:
        """As COCO lists them."""
        return [{"id": number, "name": name, "supercategory": OBJECT} for name, number in self._ids.items()]

    def lvis(self) -> list[dict[str, Any]]:
        """As LVIS lists them; there are no synsets or definitions, and frequencies are this file's."""
        return [
            {
                **category,
                "synset": "",
                "synonyms": [category["name"]],
                "def": "",
                "image_count": self._images[category["name"]],
                "instance_count": self._instances[category["name"]],
                "frequency": _frequency(self._images[category["name"]]),
            }
            for category in self.coco()
        ]


def _frequency(num_images: int) -> str:
    return next((letter for most, letter in FREQUENCIES if num_images <= most), "f")
