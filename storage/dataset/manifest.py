"""A generation's manifest: its rows in a Parquet file, one for each (shard, column), in that order.

A row names a commit record with its sha256 and the data objects, and repeats the counts, so that readers
need no record to know what is there. Rows are never changed: another generation has a manifest of its own.

Manifests grow with the dataset, so they are written and read a row group at a time, as Arrow tables
(`manifest_tables`); `manifest_rows` has all rows at once, for readers of datasets that fit.

It does not know: how rows of one generation become those of the next (row_set.py).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.arrow import WORTH_THREADS, table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, read_object
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_PER_GROUP = 50_000  # written and read at once; manifests of the first releases are one group
KEPT_BYTES = 8_000_000  # the last manifests up to this size stay in memory: a command reads them often


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A shard of a column, as a generation has it.

    Attributes:
        shard, column, fingerprint: which.
        record, record_sha256: the commit record's object and bytes.
        data, index: what the record names.
        num_read, num_written, num_rejects: its counts.
        reasons: its rejects by reason, as JSON: {"too_small": 2}; None in manifests written before.
    """

    shard: int
    column: str
    fingerprint: str
    record: str
    record_sha256: str
    data: WrittenObject
    index: WrittenObject | None
    num_read: int
    num_written: int
    num_rejects: int
    reasons: str | None = field(default=None, compare=False)


def row_of(version: ColumnVersion, record: CommitRecord) -> GenerationRow:
    """A record as a generation lists it."""
    by_reason = Counter(reject.reason for reject in record.rejects)
    return GenerationRow(
        shard=record.shard,
        column=record.column,
        fingerprint=record.fingerprint,
        record=version.record_name(record.shard, record.repair),
        record_sha256=record.sha256,
        data=record.data,
        index=record.index,
        num_read=record.num_read,
        num_written=record.num_written,
        num_rejects=len(record.rejects),
        reasons=json.dumps(by_reason, sort_keys=True) if by_reason else "{}",
    )


_PLAIN = (
    "shard",
    "column",
    "fingerprint",
    "record",
    "record_sha256",
    "num_read",
    "num_written",
    "num_rejects",
)
OBJECT_FIELDS = ("name", "size_bytes", "sha256", "num_samples")
_REPEATED = (
    "column",
    "fingerprint",
    "num_read",
    "num_written",
    "num_rejects",
    "data_num_samples",
    "index_num_samples",
    "reasons",
)
"""Fields with few values: a dictionary makes these smaller, and names and hashes larger."""
KEY = ("shard", "column")


@lru_cache(maxsize=1)
def manifest_schema() -> pa.Schema:
    """The fields of a row as Arrow has them."""
    import pyarrow as pa

    numbers = {"shard", "num_read", "num_written", "num_rejects", "size_bytes", "num_samples"}

    def kind(name: str) -> pa.DataType:
        """Of a field of a row."""
        return pa.int64() if name in numbers else pa.string()

    plain = [pa.field(name, kind(name), nullable=False) for name in _PLAIN]
    data = [pa.field(f"data_{name}", kind(name), nullable=False) for name in OBJECT_FIELDS]
    index = [pa.field(f"index_{name}", kind(name)) for name in OBJECT_FIELDS]
    return pa.schema([*plain, *data, *index, pa.field("reasons", pa.string())])


def write_manifest(store: ObjectStore, name: str, tables: Iterable[pa.Table]) -> WrittenObject:
    """Writes rows, a row group after the other: what is held beside them does not grow with them.

    Args:
        store: the dataset.
        name: of the object, nobody else's.
        tables: of rows, by shard and column.
    """
    import pyarrow.parquet as pq

    num_rows = 0
    with store.open_write(name) as target:
        hashing = HashingWriter(target)
        with pq.ParquetWriter(
            hashing, manifest_schema(), compression="zstd", use_dictionary=list(_REPEATED)
        ) as writer:
            for table in tables:
                writer.write_table(table, ROWS_PER_GROUP)
                num_rows += table.num_rows
            if not num_rows:
                writer.write_table(row_table(()))
    return WrittenObject(name, hashing.num_bytes, hashing.hexdigest(), num_rows)


def row_table(rows: Sequence[GenerationRow]) -> pa.Table:
    """Rows as a manifest has them."""
    table = {name: [getattr(row, name) for row in rows] for name in (*_PLAIN, "reasons")}
    for name in OBJECT_FIELDS:
        table[f"data_{name}"] = [getattr(row.data, name) for row in rows]
        table[f"index_{name}"] = [getattr(row.index, name) if row.index else None for row in rows]
    return table_of(table, manifest_schema())


@lru_cache(maxsize=2)
def manifest_rows(store: ObjectStore, manifest: WrittenObject) -> tuple[GenerationRow, ...]:
    """The rows of a manifest, by shard and column; the last two manifests are kept.

    Raises:
        DamagedObject: it is no Parquet file of such rows, or has another number of them than was written.
        ObjectNotFound: it is gone.
    """
    return tuple(row for table in manifest_tables(store, manifest) for row in table_rows(table))


def manifest_tables(
    store: ObjectStore,
    manifest: WrittenObject,
    fields: Collection[str] | None = None,
    *,
    shards: Collection[int] | None = None,
) -> Iterator[pa.Table]:
    """The rows of a manifest, a part of them in memory at a time.

    Args:
        store: the dataset.
        manifest: the object.
        fields: of a row; None is all.
        shards: row groups that have none of these are passed over; None is all.

    Raises:
        DamagedObject: it is no Parquet file of such rows, or has another number of them than was written.
        ObjectNotFound: it is gone.
    """
    schema = manifest_schema()
    names = [name for name in schema.names if fields is None or name in fields]
    if manifest.size_bytes <= KEPT_BYTES:
        kept = small_manifest(store, manifest).select(names)
        yield from (kept.slice(at, ROWS_PER_GROUP) for at in range(0, kept.num_rows, ROWS_PER_GROUP))
    else:
        yield from _read_tables(store, manifest, names, shards)


@lru_cache(maxsize=2)
def small_manifest(store: ObjectStore, manifest: WrittenObject) -> pa.Table:
    """All rows of a manifest; the last two are kept. Raises DamagedObject, ObjectNotFound."""
    import pyarrow as pa

    tables = list(_read_tables(store, manifest, manifest_schema().names, None))
    return pa.concat_tables(tables) if tables else row_table(())


def _read_tables(
    store: ObjectStore, manifest: WrittenObject, names: Sequence[str], shards: Collection[int] | None
) -> Iterator[pa.Table]:
    """See manifest_tables. Raises DamagedObject."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([manifest_schema().field(name) for name in names])
    try:
        with pq.ParquetFile(pa.BufferReader(read_object(store, manifest))) as file:
            num_rows = file.metadata.num_rows
            groups = _groups_of(file, shards)
            threads = num_rows > WORTH_THREADS
            for batch in file.iter_batches(
                ROWS_PER_GROUP, columns=list(names), row_groups=groups, use_threads=threads
            ):
                columns = [
                    batch.column(name) if name in batch.schema.names else pa.nulls(len(batch), pa.string())
                    for name in names
                ]
                yield pa.Table.from_arrays(columns, schema=schema)
    except (pa.ArrowException, KeyError) as exc:
        raise DamagedObject(f"{store.root}/{manifest.name}: not a readable manifest ({exc})") from exc
    if num_rows != manifest.num_samples:
        raise DamagedObject(f"{store.root}/{manifest.name}: {num_rows} rows, not {manifest.num_samples}")


def _groups_of(file: pq.ParquetFile, shards: Collection[int] | None) -> list[int]:
    """The row groups that may have some of these shards."""
    groups = list(range(file.num_row_groups))
    if shards is None:
        return groups
    place = file.schema_arrow.names.index("shard")
    wanted = sorted(shards)

    def may_have(group: int) -> bool:
        """By the smallest and largest shard in it."""
        known = file.metadata.row_group(group).column(place).statistics
        if known is None or not known.has_min_max:
            return True
        first = bisect_left(wanted, known.min)
        return first < len(wanted) and wanted[first] <= known.max

    return [group for group in groups if may_have(group)]


def table_rows(table: pa.Table) -> Iterator[GenerationRow]:
    """The rows of a table with all fields. Column by column: a dict a row would cost more than the row."""
    lists: Mapping[str, Sequence[Any]] = {name: table.column(name).to_pylist() for name in table.schema.names}
    plain = [lists[name] for name in _PLAIN]
    data = [lists[f"data_{name}"] for name in OBJECT_FIELDS]
    index = [lists[f"index_{name}"] for name in OBJECT_FIELDS]
    objects = zip(zip(*data, strict=True), zip(*index, strict=True), strict=True)
    for values, (written, indexed), reasons in zip(
        zip(*plain, strict=True), objects, lists["reasons"], strict=True
    ):
        shard, column, fingerprint, record, record_sha256, num_read, num_written, num_rejects = values
        yield GenerationRow(
            shard,
            intern(column),
            intern(fingerprint),
            record,
            record_sha256,
            WrittenObject(*written),
            WrittenObject(*indexed) if indexed[0] is not None else None,
            num_read,
            num_written,
            num_rejects,
            reasons,
        )


def named_objects(store: ObjectStore, manifest: WrittenObject) -> Iterator[str]:
    """The names of all data and index objects that a manifest names, a part of it in memory at a time.

    Raises:
        DamagedObject, ObjectNotFound: as manifest_tables.
    """
    for table in manifest_tables(store, manifest, ("data_name", "index_name")):
        for column in table.columns:
            yield from (name for name in column.to_pylist() if name is not None)
