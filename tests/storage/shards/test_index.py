from __future__ import annotations

import pytest

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.index import index_schema, read_index, write_index
from maskmill.storage.stores.base import ObjectStore
from tests.storage.datasets import index_rows


def test_rows_round_trip(store: ObjectStore) -> None:
    rows = [*index_rows(["000000001", "000000002"]), next(index_rows(["000000002"])) | {"parent": 20_000}]
    written = write_index(store, "index/0.parquet", rows)
    assert written.num_samples == 3
    table = read_index(store, written)
    assert table.schema.equals(index_schema())
    assert table.to_pylist() == rows
    assert write_index(store, "index/1.parquet", rows).sha256 == written.sha256


def test_no_rows_are_a_table(store: ObjectStore) -> None:
    table = read_index(store, write_index(store, "index/0.parquet", []))
    assert (table.num_rows, table.schema.equals(index_schema())) == (0, True)


def test_rows_that_do_not_fit_are_refused(local_store: ObjectStore) -> None:
    (row,) = index_rows(["000000001"])
    for changed in ({**row, "extra": 1}, {**row, "area_px": "many"}, {**row, "key": None}):
        with pytest.raises(ValueError, match=r"row"):
            write_index(local_store, "index/0.parquet", [row, changed])
    lacking = {name: value for name, value in row.items() if name != "parent"}
    with pytest.raises(ValueError, match="needs"):
        write_index(local_store, "index/0.parquet", [lacking])
    assert list(local_store.list()) == []


def test_damage_is_noticed(store: ObjectStore) -> None:
    written = write_index(store, "index/0.parquet", list(index_rows(["000000001"])))
    data = bytearray(store.read(written.name))
    data[50] ^= 1
    store.put(written.name, bytes(data))
    with pytest.raises(DamagedObject, match="its record says"):
        read_index(store, written)
