"""SQL over a generation's Parquet: on a folder and through S3's API, and nothing beside it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.dataset.record_rows import RecordRows
from maskmill.storage.errors import DamagedObject
from maskmill.storage.query.query import QueryError, run_query, table_names
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, IMAGES, MASKS, commit, commit_images, commit_masks, plan_pictures


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
    assert table_names(generation) == ("images", "shards", "masks", "saves")
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


@pytest.mark.parametrize("sql", ["", "  \n", "-- nothing", ";"])
def test_an_empty_query_is_told_what_to_ask(local: tuple[ObjectStore, Generation], sql: str) -> None:
    with pytest.raises(QueryError, match=r'such as "select count\(\*\) from masks"'):
        run_query(*local, sql)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("select * from nothing", "the tables are images, shards, masks"),
        ("select * from masks where colour = 1", 'column "colour" not found'),
        ("select cast('a' as int)", "Could not convert string 'a' to INT32"),
        ("select * from glob('/etc/*')", "--unsafe"),
        ("set enable_external_access = true", "--unsafe"),
        ("set memory_limit = '1TB'", "--unsafe"),
        ("attach '/tmp/other.db'", "--unsafe"),
        ("select error('x')", "cannot be answered: x"),
    ],
)
def test_every_refusal_is_a_sentence(local: tuple[ObjectStore, Generation], sql: str, told: str) -> None:
    with pytest.raises(QueryError, match="cannot be answered") as caught:
        run_query(*local, sql)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unsafe_reads_files_and_only_then(local: tuple[ObjectStore, Generation], tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n7\n")
    sql = f"select a from read_csv('{tmp_path / 'mine.csv'}')"
    assert run_query(*local, sql, unsafe=True).rows == ((7,),)
    with pytest.raises(QueryError):
        run_query(*local, sql)


def test_a_query_that_takes_too_long_is_stopped(local: tuple[ObjectStore, Generation]) -> None:
    sql = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"
    started_s = time.monotonic()
    with pytest.raises(QueryError, match=r"stopped after 0\.3 s: narrow it, or give it longer \(--timeout\)"):
        run_query(*local, sql, timeout_s=0.3)
    assert time.monotonic() - started_s < 20


def test_a_column_without_an_index_is_read_from_its_records(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    plan_pictures(store, str(tmp_path / "photos"), 7)
    words = ColumnVersion(store, "labels", "5" * 16)
    for shard in range(2):
        images = commit_images(store, shard)
        commit_masks(store, images)
        keys = [sample.key for sample in ColumnVersion(store, "images", IMAGES).read(images)]
        samples = [
            Sample(key, {"json": json.dumps({"words": [{"word": f"w{key}"}, {"word": "x"}]}).encode()})
            for key in keys
        ]
        commit(words, shard, samples, (), {"images": images.sha256})
    columns = {"images": IMAGES, "masks": MASKS, "labels": "5" * 16}
    generation = publish(store, columns, settings={}, models={}, totals={}, created_utc=CREATED)
    assert table_names(generation) == ("images", "shards", "labels", "labels_masks", "masks", "saves")

    how = RecordRows({"word": "string"}, lambda record: record["words"])
    sql = "select word, count(*) from labels join masks using (key) group by 1 order by 2 desc, 1"
    rows = run_query(store, generation, sql, rows_for=lambda column: how).rows
    assert rows[0] == ("x", 7) and rows[1] == ("w000000001", 1) and len(rows) == 8
    (first,) = run_query(store, generation, "select record from Labels order by key limit 1").rows
    assert json.loads(first[0])["words"][1] == {"word": "x"}

    bad = RecordRows({"word": "string"}, lambda record: [{"word": record["nothing"]}])
    with pytest.raises(DamagedObject, match=r"000000001 is no record of labels"):
        run_query(store, generation, sql, rows_for=lambda column: bad)
    assert run_query(store, generation, "select count(*) from masks", rows_for=lambda column: bad).rows
