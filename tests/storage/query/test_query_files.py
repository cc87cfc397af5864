"""Answers as files: every row, types kept, nothing left of what failed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maskmill.storage.dataset.generations import Generation
from maskmill.storage.query.query import QueryError, answering, run_query
from maskmill.storage.query.query_files import write_csv, write_parquet
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.query.test_query import make

MANY = "select range as n, [range, 2] as pair, case when range > 0 then 'a,\"b' end as text from range(25000)"


@pytest.fixture
def asked(tmp_path: Path) -> tuple[ObjectStore, Generation]:
    store = open_store(tmp_path / "data")
    return store, make(store, str(tmp_path / "photos"))


def test_csv_has_every_row_and_reads_back(asked: tuple[ObjectStore, Generation]) -> None:
    out = io.StringIO()
    assert write_csv(answering(*asked, MANY), out) == 25_000
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert rows[0] == ["n", "pair", "text"]
    assert rows[1] == ["0", "[0, 2]", ""]
    assert rows[-1][0] == "24999" and json.loads(rows[-1][1]) == [24_999, 2] and rows[-1][2] == 'a,"b'


def test_parquet_keeps_the_types_and_is_what_the_query_gives(
    asked: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    path = tmp_path / "answer.parquet"
    sql = "select key, area_px, predicted_iou from masks order by key, area_px"
    num_rows = write_parquet(answering(*asked, sql), path)
    table = pq.read_table(path)
    result = run_query(*asked, sql)
    assert num_rows == table.num_rows == len(result.rows) > 0
    assert [tuple(row.values()) for row in table.to_pylist()] == list(result.rows)
    assert str(table.schema.field("area_px").type).startswith("int")


def test_rows_can_be_limited(asked: tuple[ObjectStore, Generation], tmp_path: Path) -> None:
    out = io.StringIO()
    assert write_csv(answering(*asked, MANY), out, max_rows=10_001) == 10_001
    assert len(out.getvalue().splitlines()) == 10_002
    assert write_parquet(answering(*asked, MANY), tmp_path / "some.parquet", max_rows=7) == 7
    assert pq.read_table(tmp_path / "some.parquet").num_rows == 7


def test_a_query_that_fails_leaves_the_old_file_and_no_other(
    asked: tuple[ObjectStore, Generation], tmp_path: Path
) -> None:
    path = tmp_path / "answer.parquet"
    path.write_bytes(b"old")
    late = "select case when range > 20000 then error('late') else 1 end as n from range(25000)"
    for sql in ("select nothing from masks", late):
        with pytest.raises(QueryError):
            write_parquet(answering(*asked, sql), path)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["answer.parquet"]
