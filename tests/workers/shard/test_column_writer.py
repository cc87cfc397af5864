"""A column's shard in the writing: order, index, rejects, and that nothing counts before a commit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import Reject
from maskmill.storage.shards.index import IndexField, read_index
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.column_writer import ColumnWriter
from maskmill.workers.shard.meter import Meter
from maskmill.workers.stages.base import EncodedSample

INDEX = (IndexField("key", "string"), IndexField("value", "int64"))
TASK = ShardTask(shard=0, attempt="a" * 16)


@pytest.fixture
def version(tmp_path: Path) -> ColumnVersion:
    return ColumnVersion(open_store(tmp_path), "values", "0" * 16)


def encoded(number: int) -> EncodedSample:
    key = f"{number:09d}"
    rows = [{"key": key, "value": number}]
    return EncodedSample(Sample(key, {"json": b"%d" % number}), rows, num_masks=number)


def objects(version: ColumnVersion) -> list[str]:
    return sorted(found.name.rpartition("/")[2] for found in version.store.list())


def test_what_is_written_counts_with_its_commit(version: ColumnVersion) -> None:
    meter = Meter()
    meter.begin(TASK)
    with ThreadPoolExecutor(2) as pool, ColumnWriter(version, TASK, meter, depth=2, index=INDEX) as writer:
        for number in (1, 2, 3):
            writer.add(pool.submit(encoded, number).result)
        writer.reject(Reject("000000004", "too_small", "2x2 px"))
        draft = writer.finish()
    assert version.record(0) is None

    record = draft.commit(inputs={"images": "ff"}, models={"m": "n"}, seconds_by_step={"write": 0.5})
    assert version.record(0) == record
    assert (record.num_read, record.num_written, record.inputs) == (4, 3, {"images": "ff"})
    assert [sample.key for sample in version.read(record)] == ["000000001", "000000002", "000000003"]
    assert record.index is not None
    assert read_index(version.store, record.index)["value"].to_pylist() == [1, 2, 3]
    assert (meter.progress().masks_done, meter.progress().num_rejects) == (6, 1)


def test_a_column_without_fields_has_no_index(version: ColumnVersion) -> None:
    with ColumnWriter(version, TASK, Meter(), depth=2, index=()) as writer:
        writer.add(lambda: encoded(1))
        draft = writer.finish()
    assert draft.index is None
    assert [name.rpartition(".")[2] for name in objects(version)] == ["tar"]


def test_what_is_abandoned_or_discarded_leaves_nothing(version: ColumnVersion) -> None:
    with ColumnWriter(version, TASK, Meter(), depth=2, index=INDEX) as writer:
        writer.add(lambda: encoded(1))
    assert objects(version) == []
    with ColumnWriter(version, TASK, Meter(), depth=2, index=INDEX) as writer:
        writer.add(lambda: encoded(1))
        draft = writer.finish()
    assert len(objects(version)) == 2
    draft.discard()
    assert objects(version) == []


def test_rows_that_do_not_fit_the_index_come_out_as_the_error(version: ColumnVersion) -> None:
    with (
        pytest.raises(ValueError, match=r"an index row has columns \['key', 'value'\]; it needs \['key'\]"),
        ColumnWriter(version, TASK, Meter(), depth=2, index=INDEX[:1]) as writer,
    ):
        writer.add(lambda: encoded(1))
        writer.finish()


def test_the_second_commit_of_a_shard_gives_the_firsts_record(version: ColumnVersion) -> None:
    records = []
    for attempt in ("a" * 16, "b" * 16):
        task = ShardTask(shard=0, attempt=attempt)
        with ColumnWriter(version, task, Meter(), depth=1, index=()) as writer:
            writer.add(lambda: encoded(1))
            records.append(writer.finish().commit(inputs={}, models={}, seconds_by_step={}))
    assert [record.attempt for record in records] == ["a" * 16, "a" * 16]
    assert sum(name.endswith(".tar") for name in objects(version)) == 1
