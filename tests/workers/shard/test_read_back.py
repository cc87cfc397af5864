"""Committed columns read back in step with their images."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord, Reject
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.storage.stores.open import open_store
from maskmill.workers.shard.read_back import ReadBack


def column(
    folder: Path, keys: list[str], rejected: list[str]
) -> dict[str, tuple[ColumnVersion, CommitRecord]]:
    version = ColumnVersion(open_store(folder), "masks", "0" * 16)
    samples = [Sample(key, {"json": key.encode()}) for key in keys]
    data = write_shard(version.store, version.data_name(0, "a" * 16), samples)
    record = CommitRecord(
        column="masks",
        fingerprint="0" * 16,
        shard=0,
        attempt="a" * 16,
        data=data,
        num_read=len(keys) + len(rejected),
        num_written=len(keys),
        rejects=tuple(Reject(key, "too_small", "") for key in rejected),
        created_utc="2025-01-01T00:00:00+00:00",
    )
    return {"masks": (version, version.commit(record))}


def test_each_key_gets_its_sample_or_the_reject_that_stands_for_it(tmp_path: Path) -> None:
    back = ReadBack(column(tmp_path, ["1", "3"], ["2"]))
    found = [back.take(key)["masks"] for key in ("1", "2", "3")]
    back.finish()
    assert [type(one) for one in found] == [Sample, Reject, Sample]
    assert [one.key for one in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [(["1"], "has nothing where 2 belongs"), (["1", "3"], "has 3 where 2 belongs")],
)
def test_a_column_out_of_step_is_damaged(tmp_path: Path, keys: list[str], told: str) -> None:
    back = ReadBack(column(tmp_path, keys, []))
    back.take("1")
    with pytest.raises(DamagedObject, match=told):
        back.take("2")


def test_a_column_with_more_than_its_images_is_damaged(tmp_path: Path) -> None:
    back = ReadBack(column(tmp_path, ["1", "2"], []))
    back.take("1")
    with pytest.raises(DamagedObject, match="has 2, which its images lack"):
        back.finish()
