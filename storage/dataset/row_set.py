"""The rows of a generation as a manifest's, with what is new spliced in: a million shards cost what changed.

    parent's manifest:   0 images  0 masks  1 images  1 masks  2 images  2 masks
    changes:                                1 masks'                               3 images
    the rows:            0 images  0 masks  1 images  1 masks' 2 images  2 masks   3 images

Rows pass by as Arrow tables, a row group of the manifest at a time and each shard whole; only rows that are
asked for become Python objects.

It does not know: which rows go together (merge.py), and what becomes of them (generations.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.manifest import (
    KEY,
    ROWS_PER_GROUP,
    GenerationRow,
    manifest_tables,
    row_table,
    table_rows,
)
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

Key = tuple[int, str]
Rows = dict[str, GenerationRow]


@dataclass(frozen=True)
class RowSet:
    """Rows, each of another (shard, column), in that order.

    Attributes:
        store: the dataset.
        manifest: whose rows stand where nothing else is said; None: none do.
        changes: rows that take a place, by (shard, column); None: that place has no row.
    """

    store: ObjectStore
    manifest: WrittenObject | None = None
    changes: Mapping[Key, GenerationRow | None] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ObjectStore, rows: Iterable[GenerationRow]) -> RowSet:
        """Rows that are at hand."""
        return cls(store, None, {(row.shard, row.column): row for row in rows})

    def changed(self, changes: Mapping[Key, GenerationRow | None]) -> RowSet:
        """The same with further changes."""
        return RowSet(self.store, self.manifest, {**self.changes, **changes})

    def __iter__(self) -> Iterator[GenerationRow]:
        """The rows. Raises DamagedObject, ObjectNotFound."""
        for table in self.tables():
            yield from table_rows(table)

    def scan(self, *fields: str) -> Iterator[tuple[Any, ...]]:
        """Some fields of every row. Raises DamagedObject, ObjectNotFound."""
        for table in self.tables(fields):
            yield from zip(*(table.column(name).to_pylist() for name in fields), strict=True)

    def of_shards(self, shards: Collection[int]) -> dict[int, Rows]:
        """The rows of some shards, by shard and column. Raises DamagedObject, ObjectNotFound."""
        wanted = set(shards)
        found: dict[int, Rows] = {}
        for table in self._stored(None, wanted) if wanted else ():
            for run in _runs(table, wanted):
                for row in table_rows(run):
                    found.setdefault(row.shard, {})[row.column] = row
        for (shard, column), change in self.changes.items():
            if shard in wanted:
                found.setdefault(shard, {}).pop(column, None)
                if change is not None:
                    found[shard][column] = change
        return {shard: rows for shard, rows in found.items() if rows}

    def each_shard(self, shards: Collection[int]) -> Iterator[tuple[int, Rows]]:
        """The same in their order, a part in memory at a time. Raises DamagedObject, ObjectNotFound."""
        wanted = set(shards)
        for table in self.tables() if wanted else ():
            for run in _runs(table, wanted):
                rows = {row.column: row for row in table_rows(run)}
                yield next(iter(rows.values())).shard, rows

    def over(self, manifest: WrittenObject | None) -> RowSet:
        """The same rows as changes to another manifest's: those alone that differ from what is there.

        Raises:
            DamagedObject, ObjectNotFound: a manifest cannot be read.
        """
        base = RowSet(self.store, manifest)
        if manifest == self.manifest:
            before = base.of_shards({shard for shard, _ in self.changes})
            wanted = self.changes
        else:
            before = {}
            for row in base:
                before.setdefault(row.shard, {})[row.column] = row
            gone: dict[Key, GenerationRow | None] = {(s, c): None for s, rows in before.items() for c in rows}
            wanted = {**gone, **{(row.shard, row.column): row for row in self}}
        changes = {
            (shard, column): row
            for (shard, column), row in wanted.items()
            if before.get(shard, {}).get(column) != row
        }
        return RowSet(self.store, manifest, changes)

    def tables(self, fields: Collection[str] | None = None) -> Iterator[pa.Table]:
        """The rows, a part in memory at a time; a shard's are in one table.

        Args:
            fields: of a row; None is all.

        Raises:
            DamagedObject: the manifest cannot be read, or is not in order.
            ObjectNotFound: it is gone.
        """
        names = None if fields is None else {*fields, *KEY}
        left = sorted(self.changes)
        for table in self._stored(names):
            last = table.column("shard")[table.num_rows - 1].as_py()
            num_here = bisect_left(left, (last + 1, ""))
            yield self._spliced(table, left[:num_here])
            left = left[num_here:]
        while left:
            num_here = bisect_left(left, (left[:ROWS_PER_GROUP][-1][0] + 1, ""))
            rows = [row for key in left[:num_here] if (row := self.changes[key]) is not None]
            table = row_table(rows)
            yield table if names is None else table.select([n for n in table.schema.names if n in names])
            left = left[num_here:]

    def _stored(
        self, names: Collection[str] | None, shards: Collection[int] | None = None
    ) -> Iterator[pa.Table]:
        """The manifest's tables, cut anew so that each has its shards whole. Raises DamagedObject."""
        import pyarrow as pa

        held: pa.Table | None = None
        if self.manifest is None:
            return
        for read in manifest_tables(self.store, self.manifest, names, shards=shards):
            if not read.num_rows:
                continue
            table = read if held is None else pa.concat_tables([held, read])
            numbers = table.column("shard").to_pylist()
            if numbers != sorted(numbers):
                raise DamagedObject(f"{self.store.root}/{self.manifest.name}: its rows are not in order")
            whole = bisect_left(numbers, numbers[-1])
            held = table.slice(whole)
            if whole:
                yield table.slice(0, whole)
        if held is not None:
            yield held

    def _spliced(self, table: pa.Table, keys: list[Key]) -> pa.Table:
        """A table with the changes that fall into it."""
        import pyarrow as pa

        if not keys:
            return table
        there: list[Key] = list(zip(*(table.column(name).to_pylist() for name in KEY), strict=True))
        if there != sorted(there):
            raise DamagedObject(f"{self.store.root}: rows of a manifest are not in order")
        new = [row for key in keys if (row := self.changes[key]) is not None]
        added = row_table(new).select(table.schema.names)
        pieces, at, taken = [], 0, 0
        for key in keys:
            place = bisect_left(there, key)
            pieces.append(table.slice(at, place - at))
            if self.changes[key] is not None:
                pieces.append(added.slice(taken, 1))
                taken += 1
            at = place + (place < len(there) and there[place] == key)
        pieces.append(table.slice(at))
        return pa.concat_tables([piece for piece in pieces if piece.num_rows] or [table.slice(0, 0)])


def _runs(table: pa.Table, shards: set[int]) -> Iterator[pa.Table]:
    """The rows of those shards that are in a table, a table each."""
    numbers = table.column("shard").to_pylist()
    for shard in sorted(shards.intersection(numbers)):
        first, end = bisect_left(numbers, shard), bisect_left(numbers, shard + 1)
        yield table.slice(first, end - first)
