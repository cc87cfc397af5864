"""The Parquet tables of a plan: images, rejects and scanned tars, a row group in memory at a time.

Pages carry checksums and the plan keeps the footer's, so a part of a table can be trusted without reading the
rest.

It does not know: which plan names which table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.errors import DamagedObject, ObjectNotFound
from maskmill.storage.plan.sources import PlannedImage
from maskmill.storage.shards.arrow import WORTH_THREADS, read_table, table_of
from maskmill.storage.shards.shards import HashingWriter, WrittenObject, check_size
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MIN_GROUP_ROWS = 4096  # a row group holds whole shards and at least so many: the footer stays small
MERGED = ".parts.parquet"
MOST_IN_JSON = 100  # names that a plan's JSON lists
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


def name_schema() -> pa.Schema:
    """A list of keys or labels."""
    import pyarrow as pa

    return pa.schema([pa.field("name", pa.string(), nullable=False)])


def write_names(
    store: ObjectStore, stem: str, kind: str, names: Collection[str]
) -> tuple[tuple[str, ...], PlanTable | None]:
    """A list as a plan keeps it: in its JSON while it is short, else as a table of its own.

    Args:
        store: the dataset.
        stem: of the plan's objects, plan/000001.
        kind: what is listed.
        names: keys or labels.
    """
    if len(names) <= MOST_IN_JSON:
        return tuple(names), None
    with RowWriter(store, f"{stem}.{new_attempt()}.{kind}.parquet", name_schema()) as table:
        for one in names:
            table.add({"name": one}, cut=True)
    return (), table.written


def write_merged(store: ObjectStore, names: Sequence[str]) -> None:
    """Copies of plans' JSONs as one object, so that hundreds of them are read at once.

    Plans never change, so copies are as good; a copy is taken only while its plan has the etag of then.

    Args:
        store: the dataset.
        names: of all plans up to the newest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    etags = {info.name: info.etag for info in store.list(f"{names[0].partition('/')[0]}/")}
    rows = [(name, etags[name], store.read(name).decode()) for name in names]
    fields = ("name", "etag", "text")
    columns = {field: [row[place] for row in rows] for place, field in enumerate(fields)}
    schema = pa.schema([pa.field(field, pa.string(), nullable=False) for field in fields])
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(columns, schema), sink, compression="zstd", write_page_checksum=True)
    store.put_if_absent(names[-1].removesuffix(".json") + MERGED, sink.getvalue().to_pybytes())


@lru_cache(maxsize=2)
def read_merged(store: ObjectStore, name: str) -> Mapping[tuple[str, str], str]:
    """Copies of plans' JSONs by name and etag; none where they cannot be read, since plans are there too."""
    import pyarrow as pa

    try:
        columns = read_table(store.read(name)).to_pydict()
        names = zip(columns["name"], columns["etag"], strict=True)
        return dict(zip(names, columns["text"], strict=True))
    except (pa.ArrowException, OSError, KeyError, ObjectNotFound):
        return {}


@lru_cache(maxsize=64)
def read_names(store: ObjectStore, table: PlanTable) -> frozenset[str]:
    """The inverse, of a table. Raises DamagedObject."""
    return frozenset(row["name"] for row in read_rows(store, table, ("name",)))


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
            threads = metadata.row_group(group).num_rows > WORTH_THREADS
            return parquet.read_row_group(group, columns=list(columns), use_threads=threads)
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
