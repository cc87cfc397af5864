"""A generation's columns as tables: the rows of their index, or rows made of their records.

A column is a table of its name. One that brings masks (`BRINGING`) is two: its index is `<column>_masks`, a
row per mask, and its own name stands for what its records say. What was made before its column had an index
is read from records, all of the generation's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskmill.storage.dataset.columns import BRINGING, brought_masks
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.dataset.record_rows import RecordRows, record_table
from maskmill.storage.query.parquet import parquet_rows
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


@dataclass(frozen=True)
class ColumnTable:
    """A table of a column, not read yet.

    Attributes:
        store: of the dataset.
        rows: the generation's rows of the column, at least one.
        how: its records become rows.
        indexed: whether the rows are those of the column's index.
    """

    store: ObjectStore
    rows: Sequence[GenerationRow]
    how: RecordRows
    indexed: bool

    def open(self) -> pa.Table | ds.Dataset:
        """The rows: of an index read on demand, of records read now. Raises DamagedObject, ObjectNotFound."""
        if self.indexed:
            return parquet_rows(self.store, [row.index for row in self.rows if row.index is not None])
        return record_table(self.store, self.rows, self.how)


def column_tables(
    store: ObjectStore, rows: Iterable[GenerationRow], rows_for: Callable[[str], RecordRows]
) -> dict[str, ColumnTable]:
    """The tables of a generation's columns, by name.

    Args:
        store: the dataset.
        rows: of the generation, or of some of its shards.
        rows_for: how the records of a table without an index become rows.
    """
    by_column: dict[str, list[GenerationRow]] = defaultdict(list)
    for row in rows:
        by_column[row.column].append(row)

    tables: dict[str, ColumnTable] = {}
    for column, found in by_column.items():
        indexed = all(row.index is not None for row in found)
        if column in BRINGING:
            name = brought_masks(column)
            tables[name] = ColumnTable(store, found, rows_for(name), indexed)
            indexed = False
        tables[column] = ColumnTable(store, found, rows_for(column), indexed)
    return tables
