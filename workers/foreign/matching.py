"""Which picture of the dataset a name in somebody's file means: the one rule for all who read such files.

Names are compared in one Unicode form (NFC; a Mac's zip unpacks another). `/` and `\\` both end a folder, and
so does the tar of a member. A name fits a picture whose path ends with it, whole folders at a time: `a/1.jpg`
is never `b/1.jpg`. Of several names that fit a picture the longest is meant, so `val/1.jpg` goes before
`1.jpg`. What is then still no pair is `ambiguous` and left out whole: two entries of one name, or one name
that is left for two pictures. Nobody can say which is meant, and a guess puts masks on the wrong picture.

maskmill's own exports call pictures by number and say in `source` where each came from (origin.py): a source
that is one picture's whole path, or that is told of it by an export, or else that its path ends with, goes
before file names.

What it doesn't know: which files or datasets the names are from.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from maskmill.workers.foreign.json_words import printable

Parts = tuple[str, ...]

_FEW = 3


@dataclass(frozen=True, slots=True)
class ForeignName:
    """How a file names an image.

    Attributes:
        file_name: as the file writes it, folders included.
        source: the path it came from, where the file says so.
    """

    file_name: str
    source: str | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of the dataset, as far as matching goes.

    Attributes:
        key: of it.
        source: where it came from (tar::member).
        told: the same as the dataset's exports tell it; "" where they were not asked.
    """

    key: str
    source: str
    told: str = ""


@dataclass(frozen=True)
class Matching:
    """Which entry of a file is which picture.

    Attributes:
        num_pictures: of the dataset.
        entry_of: picture's key -> place of its entry among the names.
        ambiguous: key of a picture that was left out -> some of the names that it could have.
        ambiguous_entries: places of entries that were left out.
        unmatched: places of entries that fit no picture.
    """

    num_pictures: int
    entry_of: Mapping[str, int]
    ambiguous: Mapping[str, tuple[str, ...]]
    ambiguous_entries: frozenset[int]
    unmatched: tuple[int, ...]

    @property
    def key_of(self) -> dict[int, str]:
        """The opposite of `entry_of`."""
        return {entry: key for key, entry in self.entry_of.items()}

    @property
    def digest(self) -> str:
        """A sha256 in hex over who is whose, for fingerprints."""
        text = repr((sorted(self.entry_of.items()), sorted(self.ambiguous)))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def explain(self, names: Sequence[ForeignName]) -> str:
        """A sentence for people on what was matched.

        Args:
            names: that were matched.
        """
        told = f"{len(self.entry_of)} of {len(names)} images are in the dataset"
        if self.ambiguous_entries:
            some = _some(names[place].file_name for place in sorted(self.ambiguous_entries))
            told += (
                f"; {len(self.ambiguous_entries)} are ambiguous, they fit several pictures or share a name "
                f"({some}): write their folders too"
            )
        if self.unmatched:
            some = _some(names[place].file_name for place in self.unmatched)
            told += f"; {len(self.unmatched)} are not in it ({some})"
        return told


def parts_of(name: str) -> Parts:
    """A name's folders and file in the form that is compared.

    Args:
        name: with `/` or `\\`, perhaps tar::member; `.` and empty folders say nothing, `..` takes one back.
    """
    text = _slashed(name)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def match(names: Sequence[ForeignName], pictures: Iterable[Picture]) -> Matching:
    """Finds each picture's entry by the rule above.

    Args:
        names: of the file's images; memory goes by these.
        pictures: of the whole dataset; seen once.
    """
    entries = _Entries(names)
    by_told: dict[Parts, list[str]] = defaultdict(list)
    by_source: dict[Parts, list[str]] = defaultdict(list)
    by_name: dict[Parts, list[str]] = defaultdict(list)
    num_pictures = 0
    for picture in pictures:
        num_pictures += 1
        if not entries.may_have(picture.source):
            continue
        parts = parts_of(picture.source)
        if picture.told and (told := parts_of(picture.told)) in entries.by_source:
            by_told[told].append(picture.key)
        elif (origin := entries.origin(parts)) is not None:
            by_source[origin].append(picture.key)
        fitting = entries.longest(parts)
        if fitting is not None:
            by_name[fitting].append(picture.key)

    # sources first, as told before by their ends: their entries and pictures are taken from the names
    entry_of: dict[str, int] = {}
    taken = set[int]()
    for parts, keys in (*by_told.items(), *by_source.items()):
        places = entries.by_source[parts]
        if len(keys) == len(places) == 1 and places[0] not in taken:
            entry_of[keys[0]] = places[0]
            taken.add(places[0])

    ambiguous: dict[str, tuple[str, ...]] = {}
    doubtful: set[int] = set()
    for parts, keys in by_name.items():
        places = [place for place in entries.by_name[parts] if place not in taken]
        left = [key for key in keys if key not in entry_of]
        if len(places) == len(left) == 1:
            entry_of[left[0]] = places[0]
        elif places and left:
            could_be = tuple(printable(names[place].file_name) for place in places[:_FEW])
            ambiguous.update(dict.fromkeys(left, could_be))
            doubtful.update(places)

    known = doubtful.union(entry_of.values())
    unmatched = tuple(place for place in range(len(names)) if place not in known)
    return Matching(num_pictures, entry_of, ambiguous, frozenset(doubtful), unmatched)


class _Entries:
    """The names of a file, to be looked up by the ends of paths."""

    def __init__(self, names: Sequence[ForeignName]) -> None:
        self.by_name: dict[Parts, list[int]] = defaultdict(list)
        self.by_source: dict[Parts, list[int]] = defaultdict(list)
        lengths: dict[str, set[int]] = defaultdict(set)
        source_lengths: dict[str, set[int]] = defaultdict(set)
        for place, name in enumerate(names):
            if parts := parts_of(name.file_name):
                self.by_name[parts].append(place)
                lengths[parts[-1]].add(len(parts))
            if name.source is not None and (parts := parts_of(name.source)):
                self.by_source[parts].append(place)
                source_lengths[parts[-1]].add(len(parts))
        self._lengths = _longest_first(lengths)
        self._source_lengths = _longest_first(source_lengths)

    def may_have(self, source: str) -> bool:
        """Whether a closer look is worth it: the quick answer for datasets much larger than the file."""
        base = _slashed(source).rpartition("/")[2]
        return bool(self.by_source) or base in self._lengths or not base.isascii() or base in ("", ".", "..")

    def longest(self, parts: Parts) -> Parts | None:
        """The longest name that a path ends with."""
        return _end_of(parts, self._lengths, self.by_name)

    def origin(self, parts: Parts) -> Parts | None:
        """The longest source that a path ends with."""
        return _end_of(parts, self._source_lengths, self.by_source)


def _longest_first(lengths: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {base: sorted(found, reverse=True) for base, found in lengths.items()}


def _end_of(
    parts: Parts, lengths: Mapping[str, Sequence[int]], known: Mapping[Parts, Sequence[int]]
) -> Parts | None:
    """The longest of the known that a path ends with."""
    for length in lengths.get(parts[-1], ()) if parts else ():
        if length <= len(parts) and parts[-length:] in known:
            return parts[-length:]
    return None


def _slashed(name: str) -> str:
    return name.replace("::", "/").replace("\\", "/")


def _some(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(map(printable, found[:_FEW])) + (", ..." if len(found) > _FEW else "")
