"""Which names of a tar, a folder or a prefix are one sample, which of them is the photograph, and what its
caption is.

WebDataset's rule: a sample's key is a name up to the first dot of its last part, and what follows is the
field; names of one key are a sample (in a tar: neighbours). `0001.jpg`, `0001.seg.png` and `0001.txt` are one
photograph with a label map and a caption. Which field is the photograph, unless it is said
(`ingest.photograph`):

    the only field that is an image by its ending; else
    the only one without a further dot (`jpg` beside `seg.png`); else
    the only JPEG (`image.jpg` beside `mask.png`); else
    all of them, each an image of its own (`left.png`, `right.png`; `img.0001.jpg`, `img.0002.jpg`).

A field that begins with a number (`img.png` beside `img.0001.png`) is always an image of its own, and so is
each of more than MAX_WAITING: names with dots, not fields. The caption is the text named like the photograph,
else the sample's own (`txt`, `json`), else its only one. Fields that are no photograph are counted, none is
dropped unsaid.

It does not know: bytes, and where names come from (examine.py, walk.py).

Source: webdataset, tariterators.py, base_plus_ext and group_by_keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from maskmill.storage.plan.endings import CAPTION_ENDINGS, IMAGE_ENDINGS, IMAGE_FORMATS, ending_of

MAX_WAITING = 64  # images of one key that wait for the sample's end

T = TypeVar("T")


def key_and_field(name: str) -> tuple[str, str]:
    """`a/0001.Seg.PNG` -> (`a/0001`, `seg.png`); the field is "" where there is no dot."""
    folder, slash, last = name.rpartition("/")
    base, _, ending = last.partition(".")
    return f"{folder}{slash}{base}", ending.lower()


@dataclass
class Group(Generic[T]):
    """What shares a key.

    Attributes:
        key: that they share.
        images: field and member of what is an image by its ending, in order.
        captions: field -> text, or the name of what has it.
        many: the key has more images than a sample may: each is one of its own.
    """

    key: str = ""
    images: list[tuple[str, T]] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    many: bool = False

    @property
    def is_full(self) -> bool:
        """Whether it is time for `divide`."""
        return len(self.images) > MAX_WAITING

    def divide(self) -> Group[T]:
        """Keeps the last image, whose caption may follow, and gives all before it."""
        before = Group(self.key, self.images[:-1], dict(self.captions), many=True)
        used = {_stem(name) for name, _ in before.images}
        self.images, self.many = self.images[-1:], True
        self.captions = {name: one for name, one in self.captions.items() if _stem(name) not in used - {""}}
        return before

    def photographs(self, wanted: str | None, skipped: Counter[str]) -> Iterator[tuple[T, str | None]]:
        """The sample's photographs with their captions; the other images are counted.

        Args:
            wanted: the photograph's field; None goes by the rule of this file's header.
            skipped: gets a count for each field that is none.
        """
        chosen = self._chosen(wanted)
        for name, member in self.images:
            if name in chosen:
                yield member, self.caption_of(name, chosen)
            else:
                skipped[f"(field {name})"] += 1

    def caption_of(self, name: str, chosen: Set[str] | None = None) -> str | None:
        """The caption of one field.

        Args:
            name: the field.
            chosen: the photographs' fields; None goes by the rule.
        """
        stem = _stem(name)
        own = [f"{stem}{ending}".removeprefix(".") for ending in CAPTION_ENDINGS]
        for place in (*own, *(ending.removeprefix(".") for ending in CAPTION_ENDINGS)):
            if place in self.captions:
                return self.captions[place]
        alone = (self._chosen(None) if chosen is None else chosen) == {name}
        return next(iter(self.captions.values())) if alone and len(self.captions) == 1 else None

    def _chosen(self, wanted: str | None) -> set[str]:
        """The fields that are photographs."""
        fields = [name for name, _ in self.images]
        if wanted is not None:
            return {wanted.lower().removeprefix(".")}
        if self.many:
            return set(fields)
        plain = [name for name in fields if "." not in name]
        jpegs = [name for name in fields if f".{name}".endswith(IMAGE_FORMATS["JPEG"])]
        numbered = {name for name in fields if "." in name and name.partition(".")[0].isdecimal()}
        for only in (fields, plain, jpegs):
            if len(only) == 1:
                return set(only) | numbered
        return set(fields)


def in_groups(names: Iterable[str]) -> dict[str, Group[str]]:
    """The images and captions among names of one folder, by key; captions by the names that have them."""
    groups: dict[str, Group[str]] = {}
    for name in sorted(names):
        ending, (key, field) = ending_of(name), key_and_field(name)
        if ending in IMAGE_ENDINGS:
            groups.setdefault(key, Group(key)).images.append((field, name))
        elif ending in CAPTION_ENDINGS:
            groups.setdefault(key, Group(key)).captions[field] = name
    for group in groups.values():
        group.many = group.is_full
    return groups


def _stem(field: str) -> str:
    """A field without its ending: `left.png` -> `left`, `png` -> ""."""
    return field.rpartition(".")[0]
