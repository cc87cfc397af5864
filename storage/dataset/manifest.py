"""A generation's manifest: its rows in a Parquet file, one for each (shard, column).

A row names a commit record with its sha256 and the data objects, and repeats the counts, so that readers
need no record to know what is there. Rows are never changed: another generation has a manifest of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.arrow import table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, read_object
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 50_000  # written and read at once; manifests written before are one group


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A shard of a column, as a generation has it.

    Attributes:
        shard, column, fingerprint: which.
        record, record_sha256: the commit record's object and bytes.
        data, index: what the record names.
        num_read, num_written, num_rejects: its counts.
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


def row_of(version: ColumnVersion, record: CommitRecord) -> GenerationRow:
    """A record as a generation lists it."""
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


def _manifest_schema() -> pa.Schema:
    import pyarrow as pa

    numbers = {"shard", "num_read", "num_written", "num_rejects", "size_bytes", "num_samples"}

    def kind(name: str) -> pa.DataType:
        """Of a field of a row."""
        return pa.int64() if name in numbers else pa.string()

    plain = [pa.field(name, kind(name), nullable=False) for name in _PLAIN]
    data = [pa.field(f"data_{name}", kind(name), nullable=False) for name in OBJECT_FIELDS]
    index = [pa.field(f"index_{name}", kind(name)) for name in OBJECT_FIELDS]
    return pa.schema([*plain, *data, *index])


def write_manifest(store: ObjectStore, name: str, rows: Sequence[GenerationRow]) -> WrittenObject:
    """Writes rows, a row group after the other: what is held beside them does not grow with them.

    Args:
        store: the dataset.
        name: of the object, nobody else's.
        rows: by shard and column.
    """
    import pyarrow.parquet as pq

    schema = _manifest_schema()
    with store.open_write(name) as target:
        hashing = HashingWriter(target)
        with pq.ParquetWriter(hashing, schema, compression="zstd") as writer:
            for start in range(0, max(1, len(rows)), ROWS_PER_GROUP):
                writer.write_table(_table(rows[start : start + ROWS_PER_GROUP], schema))
    return WrittenObject(name, hashing.num_bytes, hashing.hexdigest(), len(rows))


def _table(rows: Sequence[GenerationRow], schema: pa.Schema) -> pa.Table:
    table = {name: [getattr(row, name) for row in rows] for name in _PLAIN}
    for name in OBJECT_FIELDS:
        table[f"data_{name}"] = [getattr(row.data, name) for row in rows]
        table[f"index_{name}"] = [getattr(row.index, name) if row.index else None for row in rows]
    return table_of(table, schema)


@lru_cache(maxsize=2)
def manifest_rows(store: ObjectStore, manifest: WrittenObject) -> tuple[GenerationRow, ...]:
    """The rows of a manifest, by shard and column; the last two manifests are kept.

    Raises:
        DamagedObject: it is no Parquet file of such rows, or has another number of them than was written.
        ObjectNotFound: it is gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[GenerationRow] = []
    try:
        with pq.ParquetFile(pa.BufferReader(read_object(store, manifest))) as file:
            for batch in file.iter_batches(ROWS_PER_GROUP, columns=_manifest_schema().names):
                rows += _rows_of(batch)
    except (pa.ArrowException, KeyError) as exc:
        raise DamagedObject(f"{store.root}/{manifest.name}: not a readable manifest ({exc})") from exc
    if len(rows) != manifest.num_samples:
        raise DamagedObject(f"{store.root}/{manifest.name}: {len(rows)} rows, not {manifest.num_samples}")
    return tuple(rows)


def _rows_of(batch: pa.RecordBatch) -> Iterator[GenerationRow]:
    """Column by column: a dict a row would cost more than the row."""
    plain = [batch.column(name).to_pylist() for name in _PLAIN]
    data = [batch.column(f"data_{name}").to_pylist() for name in OBJECT_FIELDS]
    index = [batch.column(f"index_{name}").to_pylist() for name in OBJECT_FIELDS]
    for values, written, indexed in zip(
        zip(*plain, strict=True), zip(*data, strict=True), zip(*index, strict=True), strict=True
    ):
        shard, column, fingerprint, record, record_sha256, *counts = values
        yield GenerationRow(
            shard,
            intern(column),
            intern(fingerprint),
            record,
            record_sha256,
            WrittenObject(*written),
            WrittenObject(*indexed) if indexed[0] is not None else None,
            *counts,
        )


def named_objects(store: ObjectStore, manifest: WrittenObject) -> Iterator[str]:
    """The names of all data and index objects that a manifest names, a part of it in memory at a time.

    Raises:
        DamagedObject, ObjectNotFound: as manifest_rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = pa.BufferReader(read_object(store, manifest))
    try:
        for batch in pq.ParquetFile(data).iter_batches(columns=["data_name", "index_name"]):
            for column in batch.columns:
                yield from (name for name in column.to_pylist() if name is not None)
    except pa.ArrowException as exc:
        raise DamagedObject(f"{store.root}/{manifest.name}: not a readable manifest ({exc})") from exc
