"""What a shard is meant to hold, and shards that hold what was checked before: counted by their rows alone.

Publishing verifies what is new. A shard whose rows are the very ones of a generation that was checked when it
was published is not looked at again, if its rows account for every key; both manifests pass by side by side.

It does not know: whether what such a row names is still there; `maskmill verify` looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.records import NOT_ANNOTATED
from maskmill.storage.plan.plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = (
    "shard",
    "column",
    "num_read",
    "num_written",
    "num_rejects",
    "fingerprint",
    "record",
    "record_sha256",
    "reasons",
)
"""Of a row: what tells whether it is the one that was checked, and how many images it counts; the sha256 of
its record stands for all that the record says."""

_Facts = tuple[Any, ...]


@dataclass(frozen=True)
class Meant:
    """What each shard is meant to hold: the dataset's columns in making order; those that it must have."""

    columns: tuple[str, ...]
    needed: tuple[str, ...]


class Carried:
    """Shards that have the very rows of a generation that was checked: counted by their rows alone."""

    def __init__(self, plan: Plan, meant: Meant, known: Generation) -> None:
        self._plan, self._meant = plan, meant
        self._known = _by_shard(known.row_set().tables(FACTS))
        self._next = next(self._known, None)
        self._annotated = self._rejected = 0
        self._lacking = Counter[str]()

    def of_table(self, table: pa.Table) -> set[int]:
        """Those of a table's shards that are counted. Tables, of whole shards, come in order."""
        counted = set[int]()
        for shard, rows in _by_shard([table.select(FACTS)]):
            while self._next is not None and self._next[0] < shard:
                self._next = next(self._known, None)
            same = self._next is not None and self._next == (shard, rows)
            if same and shard < self._plan.num_shards and self._adds_up(shard, rows):
                counted.add(shard)
        return counted

    def _adds_up(self, shard: int, rows: Sequence[_Facts]) -> bool:
        """Whether the rows account for every key: then they are counted."""
        by_column = {row[0]: row for row in rows}
        images = by_column.pop("images", None)
        if images is None or not by_column.keys() >= {*self._meant.needed}:
            return False
        num_read, num_written, num_rejects = images[1:4]
        if num_read != self._plan.num_images_of(shard):
            return False

        # What columns after images reject, where their rows tell how many images that is
        rejecting = [row for row in by_column.values() if row[3]]
        num_left_out = sum(row[3] for row in rejecting)
        if any(row[1] != num_written or row[2] != num_written - row[3] for row in by_column.values()):
            return False
        if len(rejecting) > 1 or any(row[7] is None or NOT_ANNOTATED in row[7] for row in rejecting):
            return False

        self._annotated += num_written - num_left_out
        self._rejected += num_rejects + num_left_out
        if len(by_column) + 1 < len(self._meant.columns):
            for column in self._meant.columns:
                if column not in ("images", *self._meant.needed, *by_column):
                    self._lacking[column] += num_written
        return True

    def counted(self) -> dict[str, Any]:
        """What they add to a finding, all together."""
        return {"annotated": self._annotated, "rejected": self._rejected, "lacking": dict(self._lacking)}


def _by_shard(tables: Iterable[pa.Table]) -> Iterator[tuple[int, list[_Facts]]]:
    """The facts of each shard's rows."""
    for table in tables:
        rows = zip(*(table.column(name).to_pylist() for name in FACTS), strict=True)
        for shard, found in groupby(rows, key=itemgetter(0)):
            yield shard, [row[1:] for row in found]
