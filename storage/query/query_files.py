"""The answer to a query as a file: CSV or Parquet, every row, a batch of rows in memory at a time.

CSV has what CSV can say: lists and structs are JSON, an absent value is an empty cell. Parquet keeps types.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 10_000


def write_csv(answer: AbstractContextManager[Any], out: TextIO, *, max_rows: int | None = None) -> int:
    """Writes an answer as CSV with a header.

    Args:
        answer: `query.answering(...)`.
        out: where to.
        max_rows: rows to write at most; None writes all.

    Returns:
        Rows written.

    Raises:
        maskmill.storage.query.query.QueryError: as `answering` raises it.
    """
    with answer as cursor:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(column[0] for column in cursor.description)
        num_rows = 0
        while rows := cursor.fetchmany(_wanted(num_rows, max_rows)):
            writer.writerows(map(_cells, rows))
            num_rows += len(rows)
    return num_rows


def write_parquet(answer: AbstractContextManager[Any], path: Path, *, max_rows: int | None = None) -> int:
    """Writes an answer as a Parquet file; the path holds the whole file or what it held.

    Args:
        answer: `query.answering(...)`.
        path: of the file; what is there is replaced.
        max_rows: rows to write at most; None writes all.

    Returns:
        Rows written.

    Raises:
        maskmill.storage.query.query.QueryError: as `answering` raises it.
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.part")
    try:
        with answer as cursor:
            num_rows = 0
            batches = _batches(cursor)
            with pq.ParquetWriter(part, batches.schema, compression="zstd") as writer:
                for batch in batches:
                    kept = batch if max_rows is None else batch.slice(0, max_rows - num_rows)
                    writer.write_batch(kept)
                    num_rows += kept.num_rows
                    if num_rows == max_rows:
                        break
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return num_rows


def _batches(cursor: Any) -> pa.RecordBatchReader:
    """The answer by batches. DuckDB advises another call, which would ask the whole again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", category=UserWarning)
        return cursor.to_arrow_reader(BATCH_ROWS)


def _wanted(num_rows: int, max_rows: int | None) -> int:
    return BATCH_ROWS if max_rows is None else min(BATCH_ROWS, max_rows - num_rows)


def _cells(row: Iterable[Any]) -> list[Any]:
    return [json.dumps(cell, default=str) if isinstance(cell, list | dict) else cell for cell in row]
