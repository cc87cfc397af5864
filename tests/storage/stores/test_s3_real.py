"""What only a real S3 store proves: exactly one winner, multipart, resumed reads, long listings."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.care.forget import forget, plan_forget
from maskmill.storage.care.garbage import find_garbage, remove_garbage
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord, new_attempt
from maskmill.storage.drivers.store_time import store_clock
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import Sample, WrittenObject, read_shard, write_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.storage.stores.promise import ensure_writable
from maskmill.storage.stores.s3_streams import PART_BYTES
from maskmill.storage.stores.suite import PROMISES, Promise
from tests.ceph import Ceph, missing_programs, running_ceph
from tests.storage.conftest import new_bucket
from tests.storage.datasets import CREATED, make_dataset

pytestmark = pytest.mark.s3


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"no real S3 store: {', '.join(missing)} not installed; see tests/ceph.py")
    with running_ceph(tmp_path_factory.mktemp("ceph")) as store:
        yield store


@pytest.fixture
def bucket(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    nowhere = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    return new_bucket({**ceph.environment, **nowhere}, monkeypatch)


@pytest.fixture
def real_store(bucket: str) -> ObjectStore:
    return open_store(f"{bucket}/data/set")


@pytest.mark.parametrize("promise", PROMISES, ids=[one.name for one in PROMISES])
def test_every_promise_is_kept(promise: Promise, real_store: ObjectStore) -> None:
    promise.check(real_store)


@pytest.mark.parametrize("num_writers", [8, 16])
@pytest.mark.parametrize("size_bytes", [500, 3_000_000])
def test_exactly_one_writer_wins(real_store: ObjectStore, num_writers: int, size_bytes: int) -> None:
    for round_number in range(10 if size_bytes < 10_000 else 4):
        barrier = threading.Barrier(num_writers)
        name = f"commits/{round_number}.json"

        def write(writer: int, name: str = name, barrier: threading.Barrier = barrier) -> bool:
            data = f"writer {writer:04d} ".encode() * (size_bytes // 12)
            barrier.wait()
            return real_store.put_if_absent(name, data)

        with ThreadPoolExecutor(num_writers) as pool:
            won = list(pool.map(write, range(num_writers)))
        assert won.count(True) == 1
        assert real_store.read(name).startswith(f"writer {won.index(True):04d} ".encode())


def test_attempts_of_one_shard_end_with_one_record_and_one_tar(real_store: ObjectStore) -> None:
    version = ColumnVersion(real_store, "images", "0" * 16)
    barrier = threading.Barrier(8)

    def attempt(number: int) -> CommitRecord:
        name = version.data_name(0, attempt_name := new_attempt())
        data = write_shard(real_store, name, [Sample("000000001", {"jpg": f"attempt {number}".encode()})])
        record = CommitRecord(
            column="images",
            fingerprint="0" * 16,
            shard=0,
            attempt=attempt_name,
            data=data,
            num_read=1,
            num_written=1,
            created_utc="2025-01-01T00:00:00+00:00",
        )
        barrier.wait()
        return version.commit(record)

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(attempt, range(8)))
    assert len({record.attempt for record in records}) == 1
    assert [info.name for info in real_store.list()] == [version.record_name(0), records[0].data.name]
    assert [sample.key for sample in version.read(records[0])] == ["000000001"]


def test_a_large_object_goes_in_parts_and_comes_back_in_ranges(real_store: ObjectStore) -> None:
    data = random.Random(0).randbytes(2 * PART_BYTES + 5_000_001)
    with real_store.open_write("data/big.tar") as target:
        for start in range(0, len(data), 700_001):
            target.write(data[start : start + 700_001])
    assert real_store.stat("data/big.tar").size_bytes == len(data)
    with real_store.open_read("data/big.tar") as source:
        assert hashlib.sha256(source.read()).digest() == hashlib.sha256(data).digest()
    for start, size in ((0, 10), (PART_BYTES - 5, 10), (len(data) - 5, 100), (12_345_678, 2_000_000)):
        assert real_store.read("data/big.tar", start, size) == data[start : start + size]


def test_an_abandoned_large_object_is_not_there(real_store: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), real_store.open_write("data/big.tar") as target:
        target.write(bytes(2 * PART_BYTES + 1))
        raise ZeroDivisionError
    assert list(real_store.list()) == []


def test_a_broken_connection_is_resumed(real_store: ObjectStore) -> None:
    data = random.Random(1).randbytes(9_000_000)
    with real_store.open_write("data/a.tar") as target:
        target.write(data)
    with real_store.open_read("data/a.tar") as source:
        begun = source.read(1_000_000)
        source.raw._body._raw_stream._fp.fp.raw._sock.shutdown(2)  # type: ignore[attr-defined]
        assert begun + source.read() == data


def test_a_long_listing_is_complete_and_sorted_and_holds_a_page_at_a_time(real_store: ObjectStore) -> None:
    names = [f"commits/{number:06d}.json" for number in range(3300)]
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(lambda name: real_store.put_if_absent(name, name.encode()), names))
    assert [info.name for info in real_store.list("commits/")] == names

    def peak_bytes(prefix: str) -> int:
        tracemalloc.start()
        assert sum(1 for _ in real_store.list(prefix)) > 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes("commits/") < 2.2 * peak_bytes("commits/001"), "of four pages no more than two are held"


def test_shards_round_trip(real_store: ObjectStore) -> None:
    samples = [Sample(f"{number:09d}", {"jpg": os.urandom(3_000_000), "json": b"{}"}) for number in range(8)]
    written = write_shard(real_store, "data/0.tar", samples)
    assert isinstance(written, WrittenObject)
    assert list(read_shard(real_store, written)) == samples


def test_two_drivers_plan_the_same_shards(real_store: ObjectStore, bucket: str) -> None:
    source = open_store(f"{bucket}/photos")
    for number in range(60):
        source.put_if_absent(f"{number:03d}.jpg", f"picture {number}".encode())
    ensure_writable(real_store)
    barrier = threading.Barrier(4)

    def plan(_: int) -> int | None:
        barrier.wait()
        return make_plan(real_store, [source.root], shard_size=7, num_threads=4).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(plan, range(4)))
    assert sorted(numbers, key=str) == [1, None, None, None]
    plans = load_plans(real_store)
    assert (plans.num_images, plans.num_shards, plans.num_rejects) == (60, 9, 0)
    assert len(list(real_store.list("plan/"))) == 2, "the losers' rows are removed"


def test_an_unfinished_upload_is_garbage_once_it_is_old(real_store: ObjectStore, tmp_path: Path) -> None:
    make_dataset(real_store, str(tmp_path / "photos"))
    writing = real_store.open_write("masks/0123456789abcdef/data/000000.killed.tar")
    writing.__enter__().write(bytes(PART_BYTES + 1))
    clock = store_clock(real_store)
    assert find_garbage(real_store, clock=clock) == [], "younger than a day"
    found = find_garbage(real_store, min_age_s=-60, clock=clock)
    assert [(one.kind, one.name) for one in found] == [
        ("unfinished", "masks/0123456789abcdef/data/000000.killed.tar")
    ]
    remove_garbage(real_store, found)
    assert list(real_store.unfinished()) == []
    assert verify(real_store, deep=True).ok
    writing.gen.close()  # type: ignore[attr-defined]


def test_an_image_is_forgotten_on_a_real_store(real_store: ObjectStore, tmp_path: Path) -> None:
    make_dataset(real_store, str(tmp_path / "photos"))
    report = forget(real_store, ["7"], created_utc=CREATED)
    assert (report.num_records, report.generation) == (2, 2)
    assert plan_forget(real_store, ["7"]).done
    assert verify(real_store, deep=True).ok
    held = [info.name for info in real_store.list() if b"picture 6" in real_store.read(info.name)]
    assert held == []
