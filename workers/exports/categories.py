"""The categories of a COCO file: masks' labels or names in the order they turn up, after "object"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

OBJECT = "object"
FREQUENCIES = ((10, "r"), (100, "c"))
"""LVIS's: categories in at most so many images are rare, common; the others are frequent."""


class Categories:
    """Ids from 1 by name; 1 is "object", of masks that have no name."""

    def __init__(self) -> None:
        self._ids = {OBJECT: 1}
        self._images: Counter[str] = Counter()
        self._instances: Counter[str] = Counter()

    def count(self, names: Iterable[str | None]) -> list[int]:
        """The categories of an image's masks, by their names; None is "object"."""
        told = [name if name is not None else OBJECT for name in names]
        self._instances.update(told)
        self._images.update(set(told))
        return [self._ids.setdefault(name, len(self._ids) + 1) for name in told]

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
