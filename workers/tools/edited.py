"""What an editor gives back, whichever it is: the masks of a picture as somebody left them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskmill.storage.errors import InputError

STEM = "sa_"
"""Pictures are called `sa_<image id>.jpg` in every editor: that is how they are known again."""


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
    """

    image_id: int
    masks: tuple[EditedMask, ...]
    who: str = ""
    seconds: float = 0.0
    generation: int | None = None


def image_id_of(name: str) -> int:
    """The id of a picture by its name in an editor: "uploads/ab12-sa_17.jpg" -> 17.

    Raises:
        InputError: no name of ours.
    """
    stem = name.rpartition("/")[2].rpartition(".")[0]
    digits = stem.rpartition(STEM)[2]
    if STEM not in stem or not (digits.isascii() and digits.isdigit()):
        raise InputError(f"{name}: is no picture that maskmill exported: those are called {STEM}<number>.jpg")
    return int(digits)
