"""Keys that sort as their ids whatever their length; plans of hundreds of parts, read at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskmill.storage.care.forget import forget
from maskmill.storage.care.garbage import find_garbage
from maskmill.storage.care.verify import verify
from maskmill.storage.errors import DatasetError, ObjectNotFound
from maskmill.storage.json_text import load_object
from maskmill.storage.plan import plan as plans
from maskmill.storage.plan import tables
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.marks import marked_shards, marks_of
from maskmill.storage.plan.plan import Plan, PlanPart, image_id_of, image_key, load_plans, part_name
from maskmill.storage.shards.shards import WrittenObject
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, plan_pictures

IDS = st.integers(1, 10**16) | st.sampled_from([10**n + step for n in range(7, 14) for step in (-1, 0, 1)])


@pytest.fixture(autouse=True)
def no_copies() -> Iterator[None]:
    """What one test has read is not there for the next one."""
    for cached in (plans._parse_part, tables.read_merged, tables.read_names):
        cached.cache_clear()
    yield


@given(one=IDS, other=IDS)
def test_keys_sort_as_ids(one: int, other: int) -> None:
    assert (image_key(one) < image_key(other)) == (one < other)
    assert image_id_of(image_key(one)) == one


def test_keys_of_before_are_as_they_were() -> None:
    assert [image_key(number) for number in (1, 999_999_999, 10**9, 10**10)] == [
        "000000001",
        "999999999",
        "a1000000000",
        "b10000000000",
    ]


@pytest.mark.parametrize(
    "key", ["", "1", "000000000", "1000000000", "b1000000000", "a0000000001", "x", "\u0660" * 8 + "1"]
)
def test_what_is_no_key(key: str) -> None:
    assert image_id_of(key) is None


def huge(store: ObjectStore) -> Plan:
    """Two parts whose seam lies past a billion images."""
    rows = tables.PlanTable(WrittenObject("plan/x.parquet", 10, "", 0), "")

    def part(number: int, first: int, num_images: int, first_shard: int) -> PlanPart:
        return PlanPart(
            number=number, inputs=(), limit=None, shard_size=1000, first_shard=first_shard,
            num_shards=-(-num_images // 1000), first_image_id=first, num_images=num_images,
            rows=replace(rows, written=replace(rows.written, num_samples=num_images)), row_group_shards=(0,),
            rejects=None, rejects_by_reason={}, resolved=(), resolved_by_reason={}, tars=None,
            skipped_by_ending={},
        )  # fmt: skip

    return Plan(store, (part(1, 1, 999_999_500, 0), part(2, 999_999_501, 2000, 1_000_000)))


def test_shards_of_more_than_a_billion_images_are_in_order(tmp_path: Path) -> None:
    plan = huge(open_store(tmp_path))
    keys = [key for shard in (999_999, 1_000_000, 1_000_001) for key in plan.keys_of(shard)]
    assert keys == sorted(keys) and len(set(keys)) == 2500
    assert plan.keys_of(1_000_000)[498:501] == ("999999999", "a1000000000", "a1000000001")
    assert [plan.shard_of(key) for key in ("999999500", "999999501", "a1000000501")] == [
        999_999,
        1_000_000,
        1_000_001,
    ]
    for key in ("1000000000", "a1000001501"):
        with pytest.raises(DatasetError, match="no image was ever planned"):
            plan.shard_of(key)


# Long lists


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Nine pictures in shards of four."""
    store = open_store(tmp_path / "data")
    plan_pictures(store, str(tmp_path / "photos"), 9)
    return store


def test_many_forgotten_keys_are_a_table(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_IN_JSON", 2)
    keys = [image_key(number) for number in (1, 2, 3, 9)]
    forget(store, keys, created_utc=CREATED)
    forget(store, [image_key(4)], created_utc=CREATED)
    said = load_object(store.read(part_name(2)))
    assert said["forgotten"] == [] and said["forgotten_table"]["written"]["num_samples"] == 4
    assert load_object(store.read(part_name(3)))["forgotten"] == [image_key(4)]
    plan = load_plans(store)
    assert plan.forgotten == {*keys, image_key(4)}
    assert marked_shards(store) == {
        shard: marks_of(store, shard) for shard in {plan.shard_of(k) for k in plan.forgotten}
    }
    assert not list(find_garbage(store, own_id="", min_age_s=-1e9)), "the table is named"

    table = said["forgotten_table"]["written"]["name"]
    assert store.stat(table).size_bytes, "forget has not taken it for a loser's"
    store.delete(table)
    tables.read_names.cache_clear()
    with pytest.raises(ObjectNotFound):
        marks_of(store, 0)


def test_many_resolved_rejects_are_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_IN_JSON", 2)
    store, photos = open_store(tmp_path / "data"), tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(b"a picture")
    for number in range(5):
        (photos / f"{number}.jpg").write_bytes(b"")
    make_plan(store, [str(photos)], shard_size=4)
    assert load_plans(store).rejects_by_reason == {"empty_file": 5}
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(f"picture {number}".encode())
    make_plan(store, [str(photos)], shard_size=4)
    assert load_object(store.read(part_name(2)))["resolved"] == []
    plan = load_plans(store)
    assert plan.rejects_by_reason == {"empty_file": 1} and len(plan.rejects) == 1
    assert plan.rejects[0].source.endswith("/4.jpg")


def test_lists_in_plans_of_before_are_read(store: ObjectStore) -> None:
    forget(store, [image_key(2)], created_utc=CREATED)
    old = load_object(store.read(part_name(2)))
    del old["forgotten_table"], old["resolved_table"]
    store.put(part_name(2), json.dumps(old).encode())
    assert load_plans(store).forgotten == {image_key(2)}


# Hundreds of plans


class Counting:
    """A store that counts what is read."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.read_names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read(self, name: str, *args: Any) -> bytes:
        self.read_names.append(name)
        return self.store.read(name, *args)


def test_hundreds_of_plans_are_read_at_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MERGE_EVERY", 3)
    for number in range(1, 8):
        forget(store, [image_key(number)], created_utc=CREATED)
    counting: Any = Counting(store)
    plan = load_plans(counting)
    assert len(plan.parts) == 8 and plan.forgotten == {image_key(number) for number in range(1, 8)}
    assert counting.read_names == ["plan/000006.parts.parquet", part_name(7), part_name(8)]
    assert plan.parts == load_plans(store, copies=False).parts
    assert not list(find_garbage(store, own_id="", min_age_s=-1e9))


def test_copies_hide_no_damage(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MERGE_EVERY", 2)
    forget(store, [image_key(1)], created_utc=CREATED)
    merged = "plan/000002.parts.parquet"
    whole = store.read(merged)
    for spoilt in (whole[:-20], b"", whole[:50] + bytes(60) + whole[110:]):
        store.put(merged, spoilt)
        no_copy = load_plans(store)
        assert no_copy.forgotten == {image_key(1)}, "plans themselves are there"
        plans._parse_part.cache_clear()
        tables.read_merged.cache_clear()

    # A byte that a disk turned, behind the store's back
    store.put(merged, whole)
    place = Path(store.root) / part_name(1)
    before = place.stat()
    place.chmod(0o644)
    place.write_bytes(place.read_bytes().replace(b"photos", b"fotos!"))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_plans(store).num_images == 9, "the copy is as good"
    assert any(part_name(1) in problem for problem in verify(store).problems)
