"""SQL over a generation's Parquet: on a folder and through S3's API, and nothing beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.dataset.query import QueryError, run_query, table_names
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, IMAGES, MASKS, commit_images, commit_masks, plan_pictures


def make(store: ObjectStore, photos: str) -> Generation:
    plan_pictures(store, photos, 7)
    for shard in range(2):
        commit_masks(store, commit_images(store, shard))
    columns = {"images": IMAGES, "masks": MASKS}
    return publish(store, columns, settings={}, models={}, totals={}, created_utc=CREATED)


@pytest.fixture
def local(tmp_path: Path) -> tuple[ObjectStore, Generation]:
    store = open_store(tmp_path / "data")
    return store, make(store, str(tmp_path / "photos"))


def test_tables_are_joined_as_they_are_named(local: tuple[ObjectStore, Generation]) -> None:
    store, generation = local
    assert table_names(generation) == ("images", "shards", "masks")
    result = run_query(
        store,
        generation,
        "select shard, count(*) as masks, any_value(m.source) as source from masks m join images using (key) "
        "group by shard order by shard",
    )
    assert result.columns == ("shard", "masks", "source")
    assert [row[:2] for row in result.rows] == [(0, 4), (1, 3)]
    assert not result.truncated
    assert run_query(store, generation, "select sum(num_written) from shards").rows == ((14,),)


def test_s3_is_read_through_the_datasets_own_store(s3_bucket: str, tmp_path: Path) -> None:
    store = open_store(f"{s3_bucket}/data")
    generation = make(store, str(tmp_path / "photos"))
    assert run_query(store, generation, "select count(distinct key) from masks").rows == ((7,),)


def test_only_what_the_generation_names_is_seen(local: tuple[ObjectStore, Generation]) -> None:
    store, first = local
    plan_more = commit_images(store, 0, digits="3" * 16)
    commit_masks(store, plan_more, digits="4" * 16)  # committed, not published
    assert run_query(store, first, "select count(*) from masks").rows == ((7,),)


def test_rows_are_cut_where_asked(local: tuple[ObjectStore, Generation]) -> None:
    result = run_query(*local, "select key from masks order by key", max_rows=3)
    assert [row[0] for row in result.rows] == ["000000001", "000000002", "000000003"]
    assert result.truncated


@pytest.mark.parametrize(
    "sql",
    [
        "select from",
        "select * from nothing",
        "select * from read_csv('/etc/hostname')",
        "copy masks to '/tmp/maskmill-query.csv'",
        "select * from generation",
        "install httpfs",
    ],
)
def test_what_is_no_question_to_these_tables_is_refused(
    local: tuple[ObjectStore, Generation], sql: str
) -> None:
    with pytest.raises(QueryError, match="cannot be answered"):
        run_query(*local, sql)


def test_without_duckdb_the_cure_is_named(
    local: tuple[ObjectStore, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(QueryError, match=r"pip install 'maskmill\[query\]'"):
        run_query(*local, "select 1")
