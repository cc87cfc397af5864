"""SQL over the Parquet that a generation names, by DuckDB.

    masks      a row per mask: the index; join with images by key
    images     a row per image of the generation, from the plan: key, image_id, shard, source, size_bytes, ...
               and, where its shard has an index of pictures, width, height and phash
    shards     a row per (shard, column): the manifest
    saves      a row per save of what people made, and which are in force
    captions, labels, names, ...   the other columns: their index, or rows of their records (record_rows.py)
    labels_masks   a row per mask that labels brought: their index, as of masks

Files are read through the dataset's own store, lazily and only the columns and row groups that a query needs,
so a local folder and S3 are the same and S3 needs no other credentials. A query sees these tables and nothing
else: no files, no network, no extensions, and it cannot change that (DuckDB's own lock). `unsafe` lifts it.

It doesn't check sha256 (that would read every file whole): pages carry checksums; `verify --deep` reads all.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskmill.storage.dataset.columns import BRINGING, brought_masks
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.record_rows import WHOLE, RecordRows, save_table
from maskmill.storage.errors import DamagedObject, DatasetError, InputError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.tables import image_schema
from maskmill.storage.query.column_tables import column_tables
from maskmill.storage.query.parquet import parquet_rows
from maskmill.storage.shards.shards import WrittenObject, read_object
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

SAVES = "saves"
TIMEOUT_S = 300.0
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "lock_configuration": "true",
}
"""DuckDB's own lock-down: what is registered can be read, and nothing else."""


class QueryError(InputError):
    """A query that cannot be answered: DuckDB's own words."""


@dataclass(frozen=True)
class QueryResult:
    """What a query gave: names, and rows of plain values; `truncated` when `max_rows` cut it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool


def run_query(
    store: ObjectStore,
    generation: Generation,
    sql: str,
    *,
    max_rows: int = 10_000,
    timeout_s: float | None = TIMEOUT_S,
    unsafe: bool = False,
    rows_for: Callable[[str], RecordRows] = lambda column: WHOLE,
) -> QueryResult:
    """Answers one SQL statement over a generation's tables.

    Args:
        store: the dataset.
        generation: what to ask about.
        sql: one statement, in DuckDB's dialect.
        max_rows: rows to bring back at most.
        timeout_s: that it may take; None for as long as it takes.
        unsafe: lets the statement read and write files, use the network and load extensions.
        rows_for: how the records of a column without an index become rows.

    Raises:
        QueryError: the statement is empty, DuckDB refuses it, or it takes too long.
        DamagedObject: a manifest or file cannot be read.
    """
    asked = answering(store, generation, sql, timeout_s=timeout_s, unsafe=unsafe, rows_for=rows_for)
    with asked as cursor:
        rows = cursor.fetchmany(max_rows + 1)
        columns = tuple(str(column[0]) for column in cursor.description)
    return QueryResult(columns, tuple(tuple(row) for row in rows[:max_rows]), len(rows) > max_rows)


@contextmanager
def answering(
    store: ObjectStore,
    generation: Generation,
    sql: str,
    *,
    timeout_s: float | None = TIMEOUT_S,
    unsafe: bool = False,
    rows_for: Callable[[str], RecordRows] = lambda column: WHOLE,
) -> Iterator[Any]:
    """DuckDB's cursor with the answer to a statement, to be read inside the block; see `run_query`.

    Raises:
        QueryError: the statement is empty, DuckDB refuses it, or it takes too long.
        DamagedObject: a manifest or file cannot be read.
    """
    if not sql.strip():
        raise QueryError('the query is empty: ask in SQL, such as "select count(*) from masks"')
    import duckdb

    connection = duckdb.connect(":memory:", config={} if unsafe else LOCKED)
    expired = threading.Event()

    def stop() -> None:
        """Ends the statement, and says why it ended."""
        expired.set()
        connection.interrupt()

    timer = threading.Timer(timeout_s, stop) if timeout_s is not None else None
    try:
        _register(connection, store, generation, sql, rows_for)
        if timer is not None:
            timer.start()
        cursor = connection.execute(sql)
        if cursor is None or cursor.description is None:
            raise QueryError('the query has no statement: ask in SQL, such as "select count(*) from masks"')
        yield cursor
    except (duckdb.Error, RuntimeError, UnicodeError) as exc:
        if expired.is_set():
            raise QueryError(
                f"the query was stopped after {timeout_s:g} s: narrow it, or give it longer (--timeout)"
            ) from exc
        raise QueryError(query_sentence(exc, table_names(generation))) from exc
    finally:
        if timer is not None:
            timer.cancel()
        connection.close()


def query_sentence(exc: Exception, tables: Sequence[str]) -> str:
    """DuckDB's words in one line, and what would help; `tables` are those that a query can name."""
    kind, _, words = str(exc).partition("\n\nLINE ")[0].partition(": ")
    told = " ".join((words or kind).split()).rstrip(".!")
    if kind == "Catalog Error" and "Table" in words:
        told += f"; the tables are {', '.join(tables)}"
    elif "disabled by configuration" in words or "configuration has been locked" in words:
        told += "; a query reads this dataset and nothing else, unless it is asked with --unsafe"
    return f"the query cannot be answered: {told}"


def table_names(generation: Generation) -> tuple[str, ...]:
    """The tables that a query can name."""
    columns = {row.column for row in generation.rows()} - {"images", SAVES}
    brought = {brought_masks(column) for column in columns if column in BRINGING}
    return ("images", "shards", *sorted(columns | brought), SAVES)


def load_table(
    store: ObjectStore,
    generation: Generation,
    name: str,
    rows_for: Callable[[str], RecordRows] = lambda column: WHOLE,
) -> pa.Table:
    """One of the tables that a query can name, whole, in memory; needs no DuckDB.

    Args:
        store: the dataset.
        generation: of it.
        name: of the table.
        rows_for: how the records of a column without an index become rows.

    Raises:
        InputError: there is no such table; says which there are.
        DamagedObject: a manifest or file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    if name not in table_names(generation):
        raise InputError(
            f"{store.root}: generation {generation.number} has no table {name!r}; there are "
            f"{', '.join(table_names(generation))}"
        )
    if name == SAVES:
        return save_table(store)
    if name == "shards":
        return _manifest(store, generation.manifest)
    try:
        if name != "images":
            table = column_tables(store, generation.rows(), rows_for)[name].open()
            return table if isinstance(table, pa.Table) else table.to_table()
        shards = sorted({row.shard for row in generation.rows() if row.column == "images"})
        return planned_rows(store).to_table(filter=ds.field("shard").isin(shards))
    except (pa.ArrowException, OSError) as exc:
        raise DamagedObject(f"{store.root}: table {name} cannot be read ({exc})") from exc


def _register(
    connection: Any,
    store: ObjectStore,
    generation: Generation,
    sql: str,
    rows_for: Callable[[str], RecordRows],
) -> None:
    """The tables; of a column without an index only if the statement may name it, since it is read whole."""
    connection.register("shards", _manifest(store, generation.manifest))
    rows = generation.rows()
    pictures = [row for row in rows if row.column == "images"]
    others = [row for row in rows if row.column not in ("images", SAVES)]  # an import may have had that name

    for name, table in column_tables(store, others, rows_for).items():
        if table.indexed or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sql, re.IGNORECASE):
            connection.register(name, table.open())
    if SAVES in sql.lower():
        connection.register(SAVES, save_table(store))
    _register_images(connection, store, [row.index for row in pictures if row.index is not None])


def _register_images(connection: Any, store: ObjectStore, indexes: Sequence[WrittenObject]) -> None:
    """The planned images of the generation's shards, as a view over the plan and the column's index."""
    connection.register("_planned", planned_rows(store))
    seen = "select key, width, height, phash from _pictures"
    if indexes:
        connection.register("_pictures", parquet_rows(store, indexes))
    else:
        seen = "select null::varchar key, null::int width, null::int height, null::varchar phash limit 0"
    connection.execute(
        f"create view images as select * from _planned left join ({seen}) using (key) "
        "where shard in (select shard from shards where \"column\" = 'images')"
    )


def planned_rows(store: ObjectStore) -> ds.Dataset:
    """Every planned image, read on demand.

    Raises:
        DatasetError: nothing is planned.
        DamagedObject: a plan's file cannot be read.
    """
    written = [part.rows.written for part in load_plans(store).parts if part.rows is not None]
    if not written:
        raise DatasetError(f"{store.root}: nothing is planned; is the path right?")
    return parquet_rows(store, written, image_schema())


def _manifest(store: ObjectStore, manifest: WrittenObject) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(pa.BufferReader(read_object(store, manifest)))
    except pa.ArrowException as exc:
        raise DamagedObject(f"{store.root}/{manifest.name}: not a readable manifest ({exc})") from exc
