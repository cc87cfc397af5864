"""Rows of a generation as a manifest's with what is new spliced in: the same as if all had been in a list."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.storage.dataset import manifest as manifests
from maskmill.storage.dataset import row_set
from maskmill.storage.dataset.generations import Publication, latest, publish_over
from maskmill.storage.dataset.manifest import GenerationRow, manifest_tables, write_manifest
from maskmill.storage.dataset.merge import count_rows
from maskmill.storage.dataset.row_set import Key, RowSet
from maskmill.storage.errors import DamagedObject
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store

OLD = Path(__file__).parents[1] / "old_dataset"
COLUMNS = ("captions", "images", "masks")


@pytest.fixture(autouse=True, params=["kept", "read again"])
def small_groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Row groups of four, so that shards lie across them; both ways of reading a manifest."""
    monkeypatch.setattr(manifests, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(row_set, "ROWS_PER_GROUP", 4)
    monkeypatch.setattr(manifests, "KEPT_BYTES", 10**9 if request.param == "kept" else 0)
    manifests.small_manifest.cache_clear()
    yield
    manifests.small_manifest.cache_clear()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return open_store(tmp_path_factory.mktemp("rows"))


def row(shard: int, column: str, version: str = "1") -> GenerationRow:
    name = f"{column}/{version}/{shard}"
    index = WrittenObject(f"{name}.parquet", 5, "b" * 64, 7) if column == "masks" else None
    data = WrittenObject(f"{name}.tar", 10, "a" * 64, 3)
    return GenerationRow(
        shard, column, version * 16, f"{name}.json", version * 64, data, index, 3, 3, 0, "{}"
    )


PLACES = st.tuples(st.integers(0, 12), st.sampled_from(COLUMNS))
KEPT, NEW, GONE = "kept", "new", "gone"


@settings(deadline=None)
@given(
    before=st.sets(PLACES),
    changes=st.dictionaries(PLACES, st.sampled_from([KEPT, NEW, GONE]), max_size=20),
    asked=st.sets(st.integers(0, 14), max_size=5),
)
def test_it_is_what_a_list_would_be(
    store: ObjectStore, before: set[Key], changes: dict[Key, str], asked: set[int]
) -> None:
    stored = {place: row(*place) for place in sorted(before)}
    manifest = write_manifest(store, "manifest.parquet", RowSet.of(store, stored.values()).tables())
    manifests.small_manifest.cache_clear()
    changed: dict[Key, GenerationRow | None] = {
        place: {KEPT: row(*place), NEW: row(*place, "2"), GONE: None}[how] for place, how in changes.items()
    }
    wanted = {place: one for place, one in sorted({**stored, **changed}.items()) if one is not None}

    rows = RowSet(store, manifest).changed(changed)
    assert list(rows) == list(wanted.values())
    assert list(rows.scan("column", "shard")) == [(column, shard) for shard, column in wanted]
    for table in rows.tables(("shard",)):
        numbers = set(table.column("shard").to_pylist())
        assert table.num_rows == sum(shard in numbers for shard, _ in wanted), "shards are whole"
    of_shards: dict[int, dict[str, GenerationRow]] = {}
    for (shard, column), one in wanted.items():
        if shard in asked:
            of_shards.setdefault(shard, {})[column] = one
    assert rows.of_shards(asked) == of_shards == dict(rows.each_shard(asked))

    true_changes = {
        place: wanted.get(place) for place in {*stored, *wanted} if stored.get(place) != wanted.get(place)
    }
    assert dict(rows.over(manifest).changes) == true_changes
    assert dict(RowSet.of(store, wanted.values()).over(manifest).changes) == true_changes


def test_rows_out_of_order_are_damage(store: ObjectStore) -> None:
    wrong = [row(1, "images"), row(0, "images")]
    manifest = write_manifest(store, "wrong.parquet", [manifests.row_table(wrong)])
    with pytest.raises(DamagedObject, match="not in order"):
        list(RowSet(store, manifest))


def test_dictionaries_are_for_what_repeats(store: ObjectStore) -> None:
    """Names and hashes are all different: a dictionary of them is one more copy."""
    rows = [row(shard, column) for shard in range(20) for column in ("images", "masks")]
    manifest = write_manifest(store, "many.parquet", [manifests.row_table(rows)])
    group = pq.read_metadata(io.BytesIO(store.read(manifest.name))).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    listed = {one.path_in_schema for one in columns if one.has_dictionary_page}
    assert listed == set(manifests._REPEATED)
    assert not {"record", "record_sha256", "data_name", "data_sha256"} & listed


def test_row_groups_without_a_wanted_shard_are_not_read(store: ObjectStore) -> None:
    rows = [row(shard, column) for shard in range(20) for column in ("images", "masks")]
    manifest = write_manifest(store, "many.parquet", RowSet.of(store, rows).tables())
    read = sum(table.num_rows for table in manifest_tables(store, manifest, shards={3, 17}))
    assert read == (40 if manifests.KEPT_BYTES else 8)


def test_a_dataset_of_before_is_read_and_published_over(tmp_path: Path) -> None:
    """Its manifest is one row group, without reasons; OLD was made by the first release, data left out."""
    shutil.copytree(OLD, tmp_path / "data")
    store = open_store(tmp_path / "data")
    parent = latest(store)
    assert parent is not None and load_plans(store).num_images == 36
    assert tuple(parent.row_set()) == parent.rows() and len(parent.rows()) == 12
    assert count_rows(store, parent.row_set()) == parent.totals

    facts: dict[str, Any] = {
        "columns": parent.columns,
        "settings": parent.settings,
        "models": parent.models,
        "totals": parent.totals,
    }
    told = RowSet.of(store, (replace(one, reasons="{}") for one in parent.rows()))
    same = publish_over(store, lambda _: Publication(told, facts), "2027", made_by="test")
    assert same.number == 1, "reasons that it lacks are no difference"
    extra = replace(parent.rows()[0], column="captions", num_rejects=1, reasons='{"too_small": 1}')
    rows = parent.row_set().changed({(0, "captions"): extra})
    second = publish_over(store, lambda _: Publication(rows, facts), "2027", made_by="test")
    assert second.rows() == (extra, *parent.rows())
    assert [one.reasons for one in second.rows()] == [extra.reasons, *[None] * 12]
