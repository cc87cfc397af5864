from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from maskmill.storage.care.garbage import find_garbage, remove_garbage
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.store_time import store_clock
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import (
    IMAGES,
    MASKS,
    commit_images,
    commit_masks,
    make_dataset,
    plan_pictures,
    publish_all,
)

DAY = 86_400.0
Clock = Callable[[], float]


def in_two_days() -> float:
    return time.time() + 2 * DAY


@pytest.fixture
def littered(local_store: ObjectStore, tmp_path: Path) -> tuple[ObjectStore, dict[str, str]]:
    """A sound dataset, and what was left lying about: name -> kind."""
    make_dataset(local_store, str(tmp_path / "photos"))
    masks = ColumnVersion(local_store, "masks", MASKS)
    left = {
        masks.data_name(0, "lost"): "data",
        masks.index_name(0, "lost"): "data",
        masks.data_name(77, "killed"): "data",
        "attempts/000001.dead.json": "attempt",
        "generations/000001/manifest.lost.parquet": "manifest",
        "generations/000009/manifest.lost.parquet": "manifest",
        "plan/000002.lost.rejects.parquet": "plan",
        "drivers/killed.json": "driver",
        "claims/run-0123456789abcdef/000007.000.json": "claim",
        f"masks/{MASKS}/data/.tmp-1234": "unfinished",
    }
    for name in left:
        path = Path(local_store.root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"rubbish")
    return local_store, left


def test_only_what_nothing_names_is_found_and_removed(littered: tuple[ObjectStore, dict[str, str]]) -> None:
    store, left = littered
    before = {info.name for info in store.list()}
    found = find_garbage(store, clock=in_two_days)
    assert {one.name: one.kind for one in found} == left
    assert {one.size_bytes for one in found} == {len(b"rubbish")}
    assert {info.name for info in store.list()} == before, "finding removes nothing"
    seen: list[int] = []
    remove_garbage(store, found, progress=seen.append)
    remove_garbage(store, found)
    assert seen[-1] == len(left)
    assert {info.name for info in store.list()} == before - left.keys()
    assert find_garbage(store, clock=in_two_days) == []
    assert verify(store, deep=True).ok


def test_a_day_is_spared(littered: tuple[ObjectStore, dict[str, str]]) -> None:
    store, left = littered
    assert find_garbage(store) == []
    assert len(find_garbage(store, min_age_s=-1)) == len(left)


def test_what_is_written_since_a_living_driver_began_is_spared(
    littered: tuple[ObjectStore, dict[str, str]],
) -> None:
    store, left = littered
    with announce(store, "generate") as lease:
        assert find_garbage(store, min_age_s=-100) == []
        alone = find_garbage(store, min_age_s=-100, own_id=lease.driver_id)
        assert len([one for one in alone if one.kind != "driver"]) == len(left) - 1


def test_superseded_objects_go_unless_a_generation_names_them(
    local_store: ObjectStore, tmp_path: Path
) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 4)
    images = commit_images(local_store, 0)
    first = commit_masks(local_store, images)
    from dataclasses import replace

    version = ColumnVersion(local_store, "masks", MASKS)
    name = version.data_name(0, "again")
    local_store.put(name, local_store.read(first.data.name))
    version.commit(replace(first, attempt="again", data=replace(first.data, name=name), repair=1))
    assert [one.name for one in find_garbage(local_store, clock=in_two_days)] == [first.data.name]


def test_a_shard_whose_records_cannot_be_read_is_spared(local_store: ObjectStore, tmp_path: Path) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 8)
    for shard in range(2):
        commit_images(local_store, shard)
    version = ColumnVersion(local_store, "images", IMAGES)
    for shard in range(2):
        local_store.put(version.data_name(shard, "lost"), b"?")
    local_store.put(version.record_name(0), b"{}")
    assert [one.name for one in find_garbage(local_store, clock=in_two_days)] == [
        version.data_name(1, "lost")
    ]


def test_unfinished_uploads_are_found_and_aborted(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"{s3_bucket}/set")
    monkeypatch.setattr("maskmill.storage.stores.s3_streams.PART_BYTES", 5 << 20)
    writing = store.open_write("masks/1/data/big")
    writing.__enter__().write(bytes(6 << 20))
    (found,) = find_garbage(store, clock=in_two_days)
    assert (found.kind, found.name) == ("unfinished", "masks/1/data/big")
    remove_garbage(store, [found])
    assert find_garbage(store, clock=in_two_days) == []
    writing.gen.close()  # type: ignore[attr-defined]


def test_the_stores_clock_leaves_nothing(store: ObjectStore) -> None:
    assert abs(store_clock(store)() - time.time()) < 60
    assert list(store.list()) == []


def test_what_others_keep_beside_generations_is_no_garbage(local_store: ObjectStore, tmp_path: Path) -> None:
    make_dataset(local_store, str(tmp_path / "photos"))
    for name in (
        "generations/000001/audits/1.parquet",
        "models/segmenter/000001/w.safetensors",
        "tags/a/1.json",
    ):
        local_store.put(name, b"kept")
    assert find_garbage(local_store, clock=in_two_days) == []


def test_versions_in_no_generation_go_only_if_asked_for(local_store: ObjectStore, tmp_path: Path) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 4)
    images = commit_images(local_store, 0)
    commit_masks(local_store, images)
    assert find_garbage(local_store, versions=True, clock=in_two_days) == [], "nothing is published yet"
    publish_all(local_store)
    tried = commit_masks(local_store, images, digits="9" * 16)
    assert tried.index is not None
    assert find_garbage(local_store, clock=in_two_days) == []
    assert find_garbage(local_store, versions=True) == [], "a day is spared"
    found = find_garbage(local_store, versions=True, clock=in_two_days)
    record = ColumnVersion(local_store, "masks", "9" * 16).record_name(0)
    assert [one.name for one in found] == [record, tried.data.name, tried.index.name], "the record first"
    remove_garbage(local_store, found)
    assert verify(local_store, deep=True).ok
