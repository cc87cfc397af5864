from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import (
    generation_name,
    latest,
    list_generations,
    load_generation,
    publish_rows,
)
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.records import parse_record, record_bytes
from maskmill.storage.errors import DamagedObject, DatasetError, ObjectNotFound
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.base import ObjectStore
from tests.storage.datasets import (
    CREATED,
    IMAGES,
    MASKS,
    commit_images,
    commit_masks,
    make_dataset,
    mask_sample,
    plan_pictures,
    publish_all,
)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(tmp_path / "photos")


def test_a_generation_is_what_was_committed(store: ObjectStore, photos: str) -> None:
    made = make_dataset(store, photos)
    assert (made.number, made.parent, made.columns) == (1, None, {"images": IMAGES, "masks": MASKS})
    found = latest(store)
    assert found == made
    assert found is not None
    assert found.settings == {"masks": {"stability": 0.95}}
    assert [(row.shard, row.column) for row in found.rows()] == [
        (shard, column) for shard in range(3) for column in ("images", "masks")
    ]
    assert [row.num_written for row in found.rows()] == [3, 3, 4, 3, 2, 2]
    assert [row.num_rejects for row in found.rows()] == [1, 0, 0, 1, 0, 0]
    assert load_generation(store, 1) == made
    assert verify(store, deep=True).ok


def test_publishing_the_same_again_gives_the_same(local_store: ObjectStore, photos: str) -> None:
    made = make_dataset(local_store, photos)
    before = [info.name for info in local_store.list()]
    assert publish_all(local_store) == made
    assert [info.name for info in local_store.list()] == before


def test_more_shards_make_another_generation(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 8)
    commit_masks(local_store, commit_images(local_store, 0))
    first = publish_all(local_store)
    commit_masks(local_store, commit_images(local_store, 1))
    second = publish_all(local_store)
    assert (second.number, second.parent, len(second.rows())) == (2, 1, 4)
    assert load_generation(local_store, 1).rows() == first.rows() == second.rows()[:2]
    assert list_generations(local_store) == [1, 2]


def test_generations_mix_versions_by_shard(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 8)
    images = [commit_images(local_store, shard) for shard in range(2)]
    for record in images:
        commit_masks(local_store, record)
    first = publish_all(local_store)
    newer = ColumnVersion(local_store, "masks", "3" * 16)
    relabeled = row_of(newer, commit_masks(local_store, images[1], digits=newer.fingerprint))
    rows = (*first.rows()[:3], relabeled)
    facts = {"columns": {**first.columns, "masks": "3" * 16}, "settings": {}, "models": {}, "totals": {}}
    mixed = publish_rows(local_store, rows, facts, CREATED)
    assert [row.fingerprint for row in mixed.rows() if row.column == "masks"] == [MASKS, "3" * 16]
    assert len(list(join(local_store, mixed))) == 8


def test_publishers_at_once_make_one_generation(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 4)
    commit_masks(local_store, commit_images(local_store, 0))
    barrier = threading.Barrier(6)

    def run(_: int) -> int:
        barrier.wait()
        return publish_all(local_store).number

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(run, range(6))) == {1}
    assert len(list(local_store.list("generations/"))) == 2, "the losers' manifests are removed"


def test_nothing_committed_is_nothing_to_publish(local_store: ObjectStore) -> None:
    assert latest(local_store) is None
    with pytest.raises(DatasetError, match="nothing is committed"):
        publish_all(local_store)


def test_masks_of_another_image_shard_are_not_published(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 4)
    other = commit_images(local_store, 0, digits="9" * 16, bad=["000000001"])
    commit_masks(local_store, other)
    commit_images(local_store, 0)
    with pytest.raises(DatasetError, match="made from another images shard"):
        publish_all(local_store)


def test_a_generation_that_is_not_there_is_told(local_store: ObjectStore, photos: str) -> None:
    make_dataset(local_store, photos)
    with pytest.raises(ObjectNotFound, match=r"no generation 7; there are \[1\]"):
        load_generation(local_store, 7)


@pytest.mark.parametrize("spoil", [b"", b"{}", b"[]", b'{"format_version": 9}'])
def test_a_damaged_generation_is_named(local_store: ObjectStore, photos: str, spoil: bytes) -> None:
    make_dataset(local_store, photos)
    local_store.put(generation_name(1), spoil)
    with pytest.raises(DamagedObject, match=r"generations/000001/generation\.json"):
        latest(local_store)


# Joining


@pytest.mark.parametrize("by_reference", [False, True])
def test_columns_are_joined_by_key(store: ObjectStore, photos: str, by_reference: bool) -> None:
    generation = make_dataset(store, photos, by_reference=by_reference)
    samples = list(join(store, generation))
    keys = [f"{number:09d}" for number in range(1, 11) if number != 2]
    assert [sample.key for sample in samples] == keys
    assert [sample.files["images"]["jpg"] for sample in samples] == [
        f"picture {int(key) - 1}".encode() for key in keys
    ]
    for sample in samples:
        if sample.key == "000000006":
            assert "masks" not in sample.files
            assert sample.rejects["masks"].reason == "out_of_memory"
        else:
            assert sample.files["masks"] == mask_sample(sample.key).files
            assert not sample.rejects
    assert [sample.shard for sample in samples] == [0] * 3 + [1] * 4 + [2] * 2


def test_joining_takes_chosen_shards_and_columns(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    assert [sample.key for sample in join(local_store, generation, shards=[2, 7])] == [
        "000000009",
        "000000010",
    ]
    masks_only = list(join(local_store, generation, ("masks",)))
    assert [list(sample.files) for sample in masks_only] == [["masks"]] * 8


def test_a_shard_without_masks_gives_its_images(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 4)
    commit_images(local_store, 0)
    (first, *_) = join(local_store, publish_all(local_store))
    assert (list(first.files), first.rejects) == (["images"], {})


@pytest.mark.parametrize(
    "change",
    [
        lambda samples: samples[:-1],
        lambda samples: samples[1:],
        lambda samples: samples[::-1],
        lambda samples: [*samples, mask_sample("000000099")],
        lambda samples: [samples[0], mask_sample("000000099"), *samples[1:]],
    ],
)
def test_columns_that_do_not_fit_are_damage(local_store: ObjectStore, photos: str, change: object) -> None:
    assert callable(change)
    plan_pictures(local_store, photos, 4)
    commit_masks(local_store, commit_images(local_store, 0), change=change)
    with pytest.raises(DamagedObject, match="masks/"):
        list(join(local_store, publish_all(local_store)))


def test_damage_is_noticed_while_joining(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    name = generation.rows()[1].data.name
    data = bytearray(local_store.read(name))
    data[600] ^= 1
    local_store.put(name, bytes(data))
    with pytest.raises(DamagedObject):
        list(join(local_store, generation))


def test_a_changed_record_is_noticed(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    name = generation.rows()[1].record
    other = replace(parse_record(local_store.read(name)), created_utc="2026")
    local_store.put(name, record_bytes(other))
    with pytest.raises(DamagedObject, match="not the record that was published"):
        list(join(local_store, generation))


def test_samples_are_plain(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    sample = next(iter(join(local_store, generation)))
    assert Sample(sample.key, sample.files["images"]).files["jpg"] == b"picture 0"
