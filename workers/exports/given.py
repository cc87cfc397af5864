"""What an imported column says of its masks beyond their pixels: category and crowd flag, for every format.

Imported records keep the file's words under `original`; here those that other formats have a place for are
put into the SA-1B record: `label` (the category's name), `category_id` and `iscrowd`. A category that the
file doesn't list is called by its id; of two of one name the later is told apart by its id.

What it doesn't know: which format can hold what; that is each format's own affair, and its to count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.coco import id_of

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation

CROWD = "crowd"
"""Why a mask is left out by formats that have objects alone."""


def given_categories(generation: Generation, column: str) -> dict[Id, str]:
    """The categories that an imported column's file lists, by id: numbers in order, then words.

    Args:
        generation: that has the column.
        column: its name; one of our own has none.
    """
    given = generation.settings.get(column)
    head = given.get("head") if isinstance(given, Mapping) else None
    listed = head.get("categories") if isinstance(head, Mapping) else None
    names: dict[Id, str] = {}
    for one in listed if isinstance(listed, list) else ():
        id_ = id_of(one.get("id")) if isinstance(one, Mapping) else None
        if id_ is not None:
            names[id_] = str(id_ if one.get("name") is None else one["name"])

    told: dict[Id, str] = {}
    for id_ in sorted(names, key=lambda id_: (isinstance(id_, str), id_)):
        name = names[id_]
        told[id_] = f"{name} ({id_})" if name in told.values() else name
    return told


def words_of(original: Mapping[str, Any], categories: Mapping[Id, str]) -> dict[str, Any]:
    """What a record's annotation gains by the words it came in.

    Args:
        original: the annotation as its file had it.
        categories: names by id.
    """
    found: dict[str, Any] = {}
    category = id_of(original.get("category_id"))
    label = original.get("label")
    if category is not None:
        found |= {"label": str(category), "category_id": category}
    if category is not None and category in categories:
        found["label"] = categories[category]
    elif isinstance(label, str) and label:
        found["label"] = label
    if "iscrowd" in original:
        found["iscrowd"] = int(bool(original["iscrowd"]))
    return found


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether a mask outlines many objects as one."""
    return bool(annotation.get("iscrowd"))
