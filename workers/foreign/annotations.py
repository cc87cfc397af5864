"""What a file of annotations says, as one value, whatever its format; and the account of what isn't taken.

The unit of rejection is the annotation: whoever takes annotations leaves a bad one out under a reason, in a
`Tally`, and the rest stands. Every annotation that was read is either taken or in an account, so that the
two add up to `ForeignSet.num_annotations`.

What it doesn't know: files (coco.py, sa1b.py), shapes (shapes.py), the dataset's pictures (matching.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maskmill.workers.foreign.json_words import shown
from maskmill.workers.foreign.matching import ForeignName

FIRST_NAMED = 5
"""So many of those left out for a reason are named; all are counted."""

Id = int | str


class BadAnnotation(Exception):
    """An annotation that cannot be taken. `reason` is a short word to count by, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ForeignAnnotation:
    """One annotation.

    Attributes:
        name: how people find it in the file: "annotation 7", or its place where it has no id.
        id: None where it has none that is a number or a word.
        category: of its category; None likewise.
        crowd: whether it outlines many objects as one.
        words: all that the file says of it, unchecked.
    """

    name: str
    id: Id | None
    category: Id | None
    crowd: bool
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ForeignImage:
    """An image that a file names.

    Attributes:
        id: unique in its file.
        named: its file name, and where it came from if the file says so.
        width, height: in px, of the annotations; None where the file doesn't say.
        words: all that the file says of it, unchecked.
        annotations: of it, in the file's order.
    """

    id: Id
    named: ForeignName
    width: int | None
    height: int | None
    words: Mapping[str, Any]
    annotations: tuple[ForeignAnnotation, ...]


@dataclass(frozen=True)
class ForeignCategory:
    """A kind of object. `name` is None where the file gives none, `frequency` is LVIS's letter or empty."""

    name: str | None
    frequency: str = ""


@dataclass(frozen=True)
class LeftOut:
    """What was left out, by reason.

    Attributes:
        counts: reason -> how many.
        first: reason -> the first few, by name.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def num(self) -> int:
        """All of them."""
        return sum(self.counts.values())


class Tally:
    """Counts what is left out, and keeps the names of the first few of each reason."""

    def __init__(self, begun: LeftOut | None = None) -> None:
        self._counts = Counter(begun.counts if begun else {})
        self._first = {reason: list(names) for reason, names in (begun.first if begun else {}).items()}

    def add(self, reason: str, name: str) -> None:
        """One more."""
        self.add_many(reason, 1, (name,))

    def add_many(self, reason: str, count: int, names: tuple[str, ...]) -> None:
        """`count` more, of which `names` are the first."""
        self._counts[reason] += count
        kept = self._first.setdefault(reason, [])
        kept += names[: FIRST_NAMED - len(kept)]

    @property
    def num(self) -> int:
        """All of them so far."""
        return self._counts.total()

    def left_out(self) -> LeftOut:
        """The account so far, reasons in order of the alphabet."""
        reasons = sorted(reason for reason, count in self._counts.items() if count)
        return LeftOut(
            {reason: self._counts[reason] for reason in reasons},
            {reason: tuple(self._first[reason]) for reason in reasons},
        )


@dataclass(frozen=True)
class ForeignSet:
    """All that was read.

    Attributes:
        format: "coco" or "sa1b".
        where: the file or files, for people.
        sha256: over the files.
        images: in the file's order; their ids are unique.
        categories: by id.
        head: the rest of a COCO file: info, licenses, categories.
        num_annotations: read, taken or not.
        left_out: annotations that belong to no image of `images`.
        images_left_out: entries of images that say too little to be used.
    """

    format: str
    where: str
    sha256: str
    images: tuple[ForeignImage, ...]
    num_annotations: int
    categories: Mapping[Id, ForeignCategory] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)
    images_left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def names(self) -> list[ForeignName]:
        """How it names its images, in order: what matching.py matches."""
        return [image.named for image in self.images]


def finite(value: object) -> float | None:
    """A number that JSON may hold, or a word that spells one, as float; None for all else.

    JSON as Python writes and reads it also has NaN, infinities and integers beyond any float.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def score_of(words: Mapping[str, Any], *keys: str) -> float:
    """An annotation's score under the first of these keys that says something; 1 where none does.

    Raises:
        BadAnnotation: `bad_score`: something that is no number.
    """
    found = next((words[key] for key in keys if words.get(key) is not None), 1.0)
    score = finite(found)
    if score is None:
        raise BadAnnotation("bad_score", f"its score is {shown(found)}, which is no number")
    return score
