"""What an editor gives back, whichever it is: the masks of a picture as somebody left them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from maskmill.pipeline.rle import MAX_PIXELS
from maskmill.storage.errors import InputError
from maskmill.workers.exports.categories import OBJECT
from maskmill.workers.exports.chosen.selection import class_of

STEM = "sa_"
"""Pictures are called `sa_<image id>.jpg` in every editor: that is how they are known again."""

SKIPPED, UNTOUCHED, DRAFT = "skipped there", "not annotated there", "a draft there, not submitted"
"""Why a picture in a file holds nobody's work."""

_NAME = re.compile(rf"(?:^|[^0-9A-Za-z_]){STEM}([0-9]+)\.[A-Za-z]+(?:$|[?&#])")


@dataclass(frozen=True)
class EditedMask:
    """A mask as it was left.

    Attributes:
        id: of the mask it was begun from; None is new, or told by its pixels alone.
        segmentation: COCO run lengths, of the picture's size.
        label: what it is called.
    """

    id: int | None
    segmentation: Mapping[str, Any]
    label: str


@dataclass(frozen=True)
class EditedImage:
    """A picture as it was left.

    Attributes:
        image_id: of the picture.
        masks: all that there are now.
        who: the person, where the editor tells; "" where not.
        seconds: of work, where the editor tells.
        generation: that the editor was given, where it tells.
        place: where it stands, for people: the file and what it is called there.
        given: of the masks that the editor was given, the label by the id, where it tells.
        all_given: whether it was given every mask of the picture, those that `given` lacks as well. Where
            not, a mask that neither `given` nor `masks` has was never seen, and stays.
        left: why nobody's work is in it: SKIPPED, UNTOUCHED or DRAFT; "" where it is.
    """

    image_id: int
    masks: tuple[EditedMask, ...]
    who: str = ""
    seconds: float = 0.0
    generation: int | None = None
    place: str = ""
    given: Mapping[int, str] = field(default_factory=dict)
    all_given: bool = True
    left: str = ""


def told_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What a picture's editor is told that it was given, as JSON has it: of masks, the label by the id."""
    return {str(row["id"]): class_of(row) or OBJECT for row in rows}


def given_in(told: Mapping[str, Any] | None) -> dict[int, str]:
    """What `told_of` told, read back; empty where nothing was.

    Raises:
        ValueError, AttributeError: it is something else.
    """
    return {int(mask_id): str(label) for mask_id, label in (told or {}).items()}


def image_id_of(name: str) -> int:
    """The id of a picture by its name in an editor: "uploads/ab12-sa_17.jpg" -> 17.

    Raises:
        InputError: no name of ours.
    """
    found = _NAME.search(unquote(name).replace("\\", "/"))
    if found is None:
        raise InputError(
            f"{name}: is no picture that maskmill exported: those are called {STEM}<number>.jpg; take it out "
            "of the file"
        )
    return int(found[1])


def mask_id_of(text: object) -> int | None:
    """The id that a text or number is; None where it is none."""
    found = str(text).strip()
    return int(found) if found.isascii() and found.isdecimal() else None


def size_of(height: Any, width: Any) -> tuple[int, int]:
    """A picture's height and width in px, before anything of that size is made.

    Raises:
        ValueError: they are none.
    """
    sides = int(height), int(width)
    if min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"no picture has {sides[1]} x {sides[0]} px")
    return sides


def one_label(labels: Iterable[object]) -> str:
    """What a mask is called.

    Raises:
        ValueError: by several names.
    """
    names = list(dict.fromkeys(str(label) for label in labels if label))
    if len(names) > 1:
        raise ValueError(f"it has {len(names)} labels, {' and '.join(map(repr, names))}: leave one")
    return names[0] if names else OBJECT


def said(exc: Exception) -> str:
    """What is wrong with something in a file, in words: a key that isn't there is named."""
    return f"it has no {exc}" if isinstance(exc, KeyError) else str(exc)
