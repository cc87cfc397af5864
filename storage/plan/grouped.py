"""Which members of a tar are one sample, which of them is the photograph, and what its caption is.

WebDataset's rule: a sample's key is a member's name up to the first dot of its last part, and what follows is
the field; neighbours of one key are a sample. `0001.jpg`, `0001.seg.png` and `0001.txt` are one photograph
with a label map and a caption. Which field is the photograph, unless it is said (`ingest.photograph`):

    the only field that is an image by its ending; else
    the only one without a further dot (`jpg` beside `seg.png`); else
    the only JPEG (`image.jpg` beside `mask.png`); else
    all of them, each an image of its own (`left.png`, `right.png`; `img.0001.jpg`, `img.0002.jpg`).

The caption is the text named like the photograph, else the sample's own (`txt`, `json`), else its only one.
Fields that are no photograph are counted, none is dropped unsaid.

It does not know: bytes and tars (examine.py).

Source: webdataset, tariterators.py, base_plus_ext and group_by_keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from maskmill.storage.plan.walk import ending_of

MAX_WAITING = 64  # images of one key that wait for the sample's end

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")

T = TypeVar("T")


def key_and_field(name: str) -> tuple[str, str]:
    """`a/0001.Seg.PNG` -> (`a/0001`, `seg.png`); the field is "" where there is no dot."""
    folder, slash, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return f"{folder}{slash}{base}", ending.lower()


@dataclass
class Group(Generic[T]):
    """The neighbours of one key.

    Attributes:
        key: that they share.
        images: field and member of what is an image by its ending, in the tar's order.
        captions: field -> text.
    """

    key: str = ""
    images: list[tuple[str, T]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)

    def photographs(self, wanted: str | None, skipped: Counter[str]) -> Iterator[tuple[T, str | None]]:
        """The sample's photographs with their captions; the other images are counted.

        Args:
            wanted: the photograph's field; None goes by the rule of this file's header.
            skipped: gets a count for each field that is none.
        """
        chosen = _chosen([name for name, _ in self.images], wanted)
        for name, member in self.images:
            if name in chosen:
                yield member, self._caption_of(name, alone=len(chosen) == 1)
            else:
                skipped[f"(field {name})"] += 1

    def _caption_of(self, name: str, *, alone: bool) -> str | None:
        stem = name[: len(name) - len(ending_of(f"x.{name}"))].removesuffix(".")
        own = [f"{stem}.{kind}" if stem else kind for kind in ("txt", "json")]
        for place in (*own, "txt", "json"):
            if place in self.captions:
                return self.captions[place]
        return next(iter(self.captions.values())) if alone and len(self.captions) == 1 else None


def _chosen(fields: list[str], wanted: str | None) -> set[str]:
    if wanted is not None:
        return {wanted.lower().removeprefix(".")}
    plain = [name for name in fields if "." not in name]
    jpegs = [name for name in fields if f".{name}".endswith(_JPEG)]
    for only in (fields, plain, jpegs):
        if len(only) == 1:
            return set(only)
    return set(fields)
