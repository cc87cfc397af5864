"""What class a mask is of: its words, as a map makes them few, kept to a list of classes.

How it works: a mask's words are its own label (an import's, a given box's), the labels that were grounded,
best first, then its names. The first word that counts decides: a label must score at least `min_label_score`;
a word is looked up in the map as it is, in lower case, then under `*`; a word mapped to "" says nothing. With
a list of classes a mask of another class, or of none, is left out and counted.

It doesn't know formats: what a mask without a class is called is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maskmill.workers.reading.words import BROUGHT_BY
from maskmill.workers.stages.registry import joined_columns

ANY = "*"
OTHER_CLASS = "other_class"
LOW_LABEL_SCORE = "low_label_score"

CLASS = "class"
"""The field of an annotation that holds its class, where a choice was made."""


@dataclass(frozen=True)
class Classes:
    """How words become classes.

    Args:
        names: the classes there are, in the order of their ids; none means all that turn up.
        mapped: class by word; `*` is for words that aren't listed.
        min_label_score: labels below this don't count, and masks that only such labels brought are left out.
    """

    names: tuple[str, ...] = ()
    mapped: Mapping[str, str] = field(default_factory=dict)
    min_label_score: float = 0.0

    @property
    def decides(self) -> bool:
        """Whether anything differs from a mask's first word."""
        return bool(self.names or self.mapped or self.min_label_score)

    def put(self, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
        """Gives masks their class.

        Args:
            rows: annotations with their words.

        Returns:
            Those that stay, with `class` (None where no word counts), and why each other doesn't.
        """
        kept, left_out = [], []
        for row in rows:
            if self._only_low(row):
                left_out.append(LOW_LABEL_SCORE)
                continue
            found = next((one for one in map(self._class_of, self._words(row)) if one is not None), None)
            if self.names and found not in self.names:
                left_out.append(OTHER_CLASS)
            else:
                kept.append({**row, CLASS: found})
        return kept, left_out

    def _words(self, row: Mapping[str, Any]) -> Iterator[str]:
        """The words that count, the weightiest first."""
        if row.get("label"):
            yield str(row["label"])
        for column in joined_columns():
            if column.join is None or column.join.word is None:
                continue
            name, word = column.join.word
            for one in row.get(name) or ():
                if name != "labels" or float(one.get("score", 1.0)) >= self.min_label_score:
                    yield str(one[word])

    def _class_of(self, word: str) -> str | None:
        """The class of a word; None says nothing."""
        if not self.mapped:
            found: str | None = word
        else:
            found = next((self.mapped[one] for one in (word, word.lower(), ANY) if one in self.mapped), word)
        return found or None

    def _only_low(self, row: Mapping[str, Any]) -> bool:
        """Whether a mask is there for its labels alone, and none scores enough."""
        if not row.get(BROUGHT_BY) or not self.min_label_score:
            return False
        return all(float(one.get("score", 1.0)) < self.min_label_score for one in row.get("labels") or ())
