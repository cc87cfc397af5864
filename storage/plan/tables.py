"""The Parquet tables of a plan: images, rejects and scanned tars, a row group in memory at a time.

Pages carry checksums and the plan keeps the footer's, so a part of a table can be trusted without reading the
rest.

It does not know: which plan names which table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from maskmill.storage.errors import DamagedObject
from maskmill.storage.plan.sources import PlannedImage
from maskmill.storage.shards.arrow import table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, check_size
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MIN_GROUP_ROWS = 4096  # a row group holds whole shards and at least so many: the footer stays small
TAIL_BYTES = 64 << 10  # read at once to find a footer


@dataclass(frozen=True)
class KnownTar:
    """A tar scanned to its end: its address, etag then, and the images planned from it."""

    source: str
    etag: str
    num_images: int


@dataclass(frozen=True)
class PlanTable:
    """A Parquet object of a plan. Its pages carry checksums, its footer's is kept here: parts can be trusted.

    Attributes:
        written: the object.
        footer_sha256: of the bytes from the footer's start to the file's end.
    """

    written: WrittenObject
    footer_sha256: str


@dataclass(frozen=True)
class RewrittenRows:
    """A table that stands for an earlier plan's: the same images, without the captions of forgotten ones.

    Attributes:
        number: of the earlier plan.
        rows, row_group_shards: as PlanPart has them.
    """

    number: int
    rows: PlanTable
    row_group_shards: tuple[int, ...]


IMAGE_COLUMNS = tuple(PlannedImage.__dataclass_fields__)
REJECT_COLUMNS = ("source", "member", "offset", "etag", "reason", "detail")
TAR_COLUMNS = tuple(KnownTar.__dataclass_fields__)


def image_schema() -> pa.Schema:
    """The plan's rows: PlannedImage's fields."""
    import pyarrow as pa

    numbers = {"image_id", "shard", "offset", "size_bytes"}
    return pa.schema(
        [
            pa.field(name, pa.int64() if name in numbers else pa.string(), nullable=name == "caption")
            for name in IMAGE_COLUMNS
        ]
    )


def reject_schema() -> pa.Schema:
    """The rows of a plan's rejects."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, pa.int64() if name == "offset" else pa.string(), nullable=False)
            for name in REJECT_COLUMNS
        ]
    )


def tar_schema() -> pa.Schema:
    """The rows of a plan's scanned tars: KnownTar's fields."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, pa.int64() if name == "num_images" else pa.string(), nullable=False)
            for name in TAR_COLUMNS
        ]
    )


def read_rows(
    store: ObjectStore, table: PlanTable | None, columns: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """The rows of one of a plan's tables, a row group in memory at a time; none if there is no table.

    Raises:
        DamagedObject: it isn't what the plan says.
    """
    if table is not None:
        for group in range(_metadata(store, table).num_row_groups):
            yield from _read_group(store, table, group, columns).to_pylist()


def read_footer(store: ObjectStore, written: WrittenObject) -> bytes:
    """A Parquet object's bytes from its footer to its end.

    Raises:
        DamagedObject: it has another size, or doesn't end as a Parquet file.
        ObjectNotFound: it is gone.
    """
    check_size(store, written)
    tail = store.read(written.name, max(0, written.size_bytes - TAIL_BYTES))
    size_bytes = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1" or size_bytes > written.size_bytes:
        raise DamagedObject(f"{store.root}/{written.name}: does not end as a Parquet file")
    if size_bytes > len(tail):
        tail = store.read(written.name, written.size_bytes - size_bytes)
    return tail[-size_bytes:]


@lru_cache(maxsize=4)
def group_images(store: ObjectStore, table: PlanTable, group: int) -> tuple[PlannedImage, ...]:
    """A row group; the last few are kept, since neighbouring shards share one. Raises DamagedObject."""
    return tuple(PlannedImage(**row) for row in _read_group(store, table, group, IMAGE_COLUMNS).to_pylist())


@lru_cache(maxsize=8)
def _metadata(store: ObjectStore, table: PlanTable) -> pq.FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    footer = read_footer(store, table.written)
    if hashlib.sha256(footer).hexdigest() != table.footer_sha256:
        raise DamagedObject(f"{store.root}/{table.written.name}: its footer is not what the plan says")
    metadata = pq.read_metadata(pa.BufferReader(footer))
    assert metadata.num_rows == table.written.num_samples
    return metadata


def _read_group(store: ObjectStore, table: PlanTable, group: int, columns: tuple[str, ...]) -> pa.Table:
    """One row group, page checksums verified."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = _metadata(store, table)
    try:
        with (
            store.open_read(table.written.name) as file,
            pq.ParquetFile(file, metadata=metadata, page_checksum_verification=True) as parquet,
        ):
            return parquet.read_row_group(group, columns=list(columns))
    except (pa.ArrowException, OSError) as exc:
        raise DamagedObject(
            f"{store.root}/{table.written.name}: row group {group} is damaged ({exc})"
        ) from exc


class RowWriter:
    """Rows streamed into one Parquet object; without rows, or on an exception, nothing is there."""

    def __init__(self, store: ObjectStore, name: str, schema: pa.Schema) -> None:
        self._store, self._name, self._schema = store, name, schema
        self._rows: list[dict[str, Any]] = []
        self._open = ExitStack()
        self._hashing: HashingWriter | None = None
        self._writer: Any = None
        self._num_rows = 0
        self.group_shards: list[int] = []
        self.written: PlanTable | None = None

    def __enter__(self) -> RowWriter:
        return self

    def add(self, row: dict[str, Any], cut: bool) -> None:
        """Adds a row; `cut` says that a row group may begin with it."""
        if cut and len(self._rows) >= MIN_GROUP_ROWS:
            self._flush()
        if not self._rows:
            self.group_shards.append(row.get("shard", 0))
        self._rows.append(row)

    def _flush(self) -> None:
        import pyarrow.parquet as pq

        if self._hashing is None:
            self._hashing = HashingWriter(self._open.enter_context(self._store.open_write(self._name)))
            self._writer = pq.ParquetWriter(
                self._hashing, self._schema, compression="zstd", write_page_checksum=True
            )
        columns = {name: [row[name] for row in self._rows] for name in self._schema.names}
        self._writer.write_table(table_of(columns, self._schema), row_group_size=len(self._rows))
        self._num_rows += len(self._rows)
        self._rows = []

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self._open.__exit__(kind, *rest)
            return
        with self._open:
            if self._rows:
                self._flush()
            if self._writer is not None:
                self._writer.close()
        if self._hashing is not None:
            written = WrittenObject(
                self._name, self._hashing.num_bytes, self._hashing.hexdigest(), self._num_rows
            )
            footer = read_footer(self._store, written)
            self.written = PlanTable(written, hashlib.sha256(footer).hexdigest())
