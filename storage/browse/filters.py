"""What a page of pictures shall show: conditions on masks and pictures, and their order, as SQL.

A `Filters` is plain values from a form; it becomes conditions with placeholders, so that nothing a person
types is taken as SQL, but for `where`, which is SQL: one expression over a mask's row and its picture's, in a
connection that sees these tables and nothing else (`LOCKED` in query/query.py).

It does not know: where rows come from (search.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from maskmill.storage.browse.gain import RARITY
from maskmill.storage.errors import InputError
from maskmill.storage.query.query import QueryError

Level = Literal["", "whole", "part"]
MakerOf = Literal["", "person", "oracle", "automatic"]
Change = Literal["", "new", "gone", "changed"]

CHANGES: dict[str, str] = {
    "": "added + removed + changed > 0",
    "new": "added > 0",
    "gone": "removed > 0",
    "changed": "changed > 0",
}
"""What can have become of a picture's masks since another generation, as SQL over their counts."""

COPIES = "copies"
"""The table of pictures that are near-duplicates of one before them, filled for orders that need it."""

SORTS = {
    "key": "key",
    "random": "hash(key, {seed})",
    "hardest": "doubt desc nulls first, key",
    "most gain": f"key in (select key from {COPIES}), gain desc nulls first, key",
    "most gain by size": f"key in (select key from {COPIES}), gain_by_size desc nulls first, key",
    "most gain by rarity": f"key in (select key from {COPIES}), gain * {RARITY} desc nulls first, key",
    "most masks": "masks desc, key",
    "fewest masks": "masks, key",
    "lowest IoU": "min_iou nulls last, key",
    "lowest stability": "min_stability nulls last, key",
    "largest mask": "largest_px desc nulls last, key",
    "smallest mask": "smallest_px nulls last, key",
}
"""How pictures can be ordered: the word, and its SQL over the rows that a search collects."""

DOUBT = (
    "coalesce(avg(1 - expected_iou), "
    "avg(greatest(0, 1 - predicted_iou) + greatest(0, 1 - stability_score)) / 2)"
)
"""How wrong a picture's masks are expected to be, on average, where a verifier judged them; else how unsure
the model is of them. Null, the hardest, where it found none."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which pictures, by their masks and by what is said of them; an empty one is all of them.

    Attributes:
        min_iou, max_iou, min_stability, max_stability: a mask's scores, ends included.
        min_area_px, max_area_px: a mask's pixels, ends included.
        level: "whole" (inside no other mask) or "part".
        label: words in a label or name of the picture's, in any case.
        text: words in its caption or its source's name, in any case.
        reject: the reason that a column rejected it for; "any" for any.
        made_by: "person" or "oracle" with such masks, "automatic" without.
        where: an SQL expression over a mask's row and its picture's.
        since: a generation, by number or tag: pictures whose masks are not the same there.
        change: of these, those with masks that are "new" since, "gone" or "changed"; "" for any difference.
        chosen: the name of a saved set of pictures.
    """

    min_iou: float | None = None
    max_iou: float | None = None
    min_stability: float | None = None
    max_stability: float | None = None
    min_area_px: float | None = None
    max_area_px: float | None = None
    level: Level = ""
    label: str = ""
    text: str = ""
    reject: str = ""
    made_by: MakerOf = ""
    where: str = ""
    since: str = ""
    change: Change = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        if self.level not in ("", "whole", "part"):
            raise InputError(f"level={self.level!r} is unknown: use whole or part")
        if self.made_by not in ("", "person", "oracle", "automatic"):
            raise InputError(f"made_by={self.made_by!r} is unknown: use person, oracle or automatic")
        if self.change not in CHANGES:
            raise InputError(f"change={self.change!r} is unknown: use new, gone or changed")
        if self.change and not self.since:
            raise InputError(f"change={self.change!r} says nothing without since: name a generation")
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name}={value} is no number: leave it out, or give one")
        if self.where.strip():
            check_where(self.where)

    @property
    def on_masks(self) -> bool:
        """Whether a picture must have a mask that fits."""
        return bool(self.mask_conditions().sql)

    def mask_conditions(self) -> Conditions:
        """What a mask must be, over its row `m` of the index."""
        bounds = (
            ("m.predicted_iou >= ?", self.min_iou),
            ("m.predicted_iou <= ?", self.max_iou),
            ("m.stability_score >= ?", self.min_stability),
            ("m.stability_score <= ?", self.max_stability),
            ("m.area_px >= ?", self.min_area_px),
            ("m.area_px <= ?", self.max_area_px),
        )
        parts: list[tuple[str, tuple[Any, ...]]] = [
            (sql, (value,)) for sql, value in bounds if value is not None
        ]
        if self.level:
            parts.append((f"m.parent is {'not ' if self.level == 'part' else ''}null", ()))
        return _all_of(parts)


@dataclass(frozen=True)
class Conditions:
    """An SQL expression, "" for none, and the values of its placeholders."""

    sql: str
    values: tuple[Any, ...] = ()


def check_where(where: str) -> None:
    """Refuses what is no single expression, before it is put among others.

    Raises:
        QueryError: it ends the expression it stands in, holds several statements, or cannot be parsed.
    """
    import duckdb

    try:
        statements = duckdb.extract_statements(f"select * from masks where ({where}\n)")
        alone = duckdb.extract_statements(f"select {where}\n")
    except duckdb.Error as exc:
        raise QueryError(f"the SQL condition cannot be read: {' '.join(str(exc).split())[:300]}") from exc
    if len(statements) != 1 or len(alone) != 1:
        raise QueryError('give one SQL condition, such as "area_px > 5000 and predicted_iou < 0.9"')


Need = Literal["gain", "labels"]


def needs_of(sort: str) -> frozenset[Need]:
    """What an order needs of a search beyond what every search collects.

    Raises:
        InputError: there is no such order.
    """
    order = order_of(sort)
    needs: tuple[tuple[Need, bool], ...] = (("gain", "gain" in order), ("labels", RARITY in order))
    return frozenset(name for name, is_needed in needs if is_needed)


def order_of(sort: str, seed: int = 0) -> str:
    """The SQL of an order.

    Raises:
        InputError: there is no such order; says which there are.
    """
    if sort not in SORTS:
        raise InputError(f"sort={sort!r} is unknown: use one of {', '.join(SORTS)}")
    return SORTS[sort].format(seed=int(seed))


def _all_of(parts: list[tuple[str, tuple[Any, ...]]]) -> Conditions:
    values = tuple(value for _, some in parts for value in some)
    return Conditions(" and ".join(sql for sql, _ in parts), values)
