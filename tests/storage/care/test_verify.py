from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from maskmill.storage.care.verify import VerifyReport, verify
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Generation, latest, publish
from maskmill.storage.dataset.merge import count_rows
from maskmill.storage.dataset.records import CommitRecord, Reject, new_attempt
from maskmill.storage.shards.shards import write_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import (
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


def counts(report: VerifyReport) -> tuple[int, int, int, int, int, int]:
    """images, annotated, rejected, missing, duplicated, damaged"""
    return (
        report.images,
        report.annotated,
        report.rejected,
        report.missing,
        report.duplicated,
        report.damaged,
    )


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("by_reference", [False, True])
def test_a_sound_dataset_is_found_sound(
    local_store: ObjectStore, photos: str, deep: bool, by_reference: bool
) -> None:
    make_dataset(local_store, photos, by_reference=by_reference)
    seen: list[int] = []
    report = verify(local_store, deep=deep, progress=seen.append)
    assert counts(report) == (12, 8, 4, 0, 0, 0), "10 planned, a double and an empty file; 2 rejected later"
    assert report.ok
    assert report.problems == ()
    assert seen == [1, 2, 3]


def test_an_empty_place_is_an_empty_dataset(local_store: ObjectStore) -> None:
    report = verify(local_store, deep=True)
    assert (counts(report), report.ok) == ((0, 0, 0, 0, 0, 0), True)


@pytest.mark.parametrize("deep", [False, True])
def test_shards_that_are_not_there_are_missing(local_store: ObjectStore, photos: str, deep: bool) -> None:
    plan_pictures(local_store, photos, 12)
    commit_masks(local_store, commit_images(local_store, 0))
    commit_images(local_store, 1, bad=["000000005"])
    report = verify(local_store, deep=deep)
    assert counts(report) == (14, 4, 3, 7, 0, 0)
    assert report.problems == ("shard 1: masks is missing, 3 images", "shard 2: images is missing, 4 images")


def test_what_is_committed_since_the_generation_counts(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 8)
    commit_masks(local_store, commit_images(local_store, 0))
    publish_all(local_store)
    assert verify(local_store).missing == 4
    commit_masks(local_store, commit_images(local_store, 1))
    assert verify(local_store, deep=True).ok


def test_the_fullest_version_counts_without_a_generation(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 8)
    commit_images(local_store, 0, digits="0" * 16)
    for shard in range(2):
        commit_masks(local_store, commit_images(local_store, shard))
    assert verify(local_store).ok


def spoil_cut(store: ObjectStore, generation: Generation) -> None:
    name = generation.rows()[2].data.name
    store.put(name, store.read(name)[:-512])


def spoil_gone(store: ObjectStore, generation: Generation) -> None:
    store.delete(generation.rows()[2].data.name)


def spoil_record(store: ObjectStore, generation: Generation) -> None:
    store.put(generation.rows()[2].record, b"{}")


def spoil_record_gone(store: ObjectStore, generation: Generation) -> None:
    store.delete(generation.rows()[2].record)


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_gone, spoil_record, spoil_record_gone])
@pytest.mark.parametrize("deep", [False, True])
def test_damage_is_counted_and_named(
    local_store: ObjectStore, photos: str, spoil: Callable[[ObjectStore, Generation], None], deep: bool
) -> None:
    spoil(local_store, make_dataset(local_store, photos))
    report = verify(local_store, deep=deep)
    assert counts(report) == (12, 5, 3, 0, 0, 4)
    (problem,) = report.problems
    assert problem.startswith("shard 1: images: ")
    assert not report.ok


def test_damaged_masks_leave_the_rejected_counted(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    local_store.delete(generation.rows()[1].data.name)
    assert counts(verify(local_store)) == (12, 5, 4, 0, 0, 3)


@pytest.mark.parametrize("kind", ["data", "index", "plan", "source"])
def test_flipped_bytes_are_found_by_reading_them(local_store: ObjectStore, photos: str, kind: str) -> None:
    generation = make_dataset(local_store, photos, by_reference=kind == "source")
    row = generation.rows()[1]
    assert row.index is not None
    names = {
        "data": row.data.name,
        "index": row.index.name,
        "plan": next(info.name for info in local_store.list("plan/") if info.name.endswith(".parquet")),
    }
    if kind == "source":
        open_store(photos).put("0009.jpg", b"picture X")
    else:
        data = bytearray(local_store.read(names[kind]))
        data[len(data) // 2] ^= 1
        local_store.put(names[kind], bytes(data))
    assert verify(local_store).ok == (kind != "plan"), "sizes are the same; a plan's small tables are read"
    report = verify(local_store, deep=True)
    assert len(report.problems) == 1
    assert report.damaged == {"data": 3, "index": 3, "plan": 0, "source": 2}[kind]


@pytest.mark.parametrize(
    ("change", "expected", "told"),
    [
        (lambda samples: samples[:-1], (6, 3, 2, 1, 0, 0), "lacks 000000004"),
        (lambda samples: [*samples, mask_sample("000000099")], (6, 4, 2, 0, 1, 0), "has unknown 000000099"),
        (
            lambda samples: [mask_sample("000000099"), *samples[1:]],
            (6, 3, 2, 1, 1, 0),
            "lacks 000000001, has unknown",
        ),
        (lambda samples: samples[::-1], (6, 4, 2, 0, 0, 0), "is out of order"),
    ],
)
def test_keys_that_do_not_fit_are_counted(
    local_store: ObjectStore,
    photos: str,
    change: Callable[[list[object]], list[object]],
    expected: tuple[int, ...],
    told: str,
) -> None:
    plan_pictures(local_store, photos, 4)
    commit_masks(local_store, commit_images(local_store, 0), change=change)  # type: ignore[arg-type]
    report = verify(local_store, deep=True)
    assert counts(report) == expected
    assert told in report.problems[0]
    shallow = verify(local_store)
    assert (shallow.missing, shallow.duplicated) == (
        max(0, expected[3] - expected[4]),
        max(0, expected[4] - expected[3]),
    )


def test_a_shard_nobody_planned_is_told(local_store: ObjectStore, photos: str, tmp_path: Path) -> None:
    make_dataset(local_store, photos)
    smaller = open_store(tmp_path / "smaller")
    plan_pictures(smaller, str(tmp_path / "few"), 4)
    for found in local_store.list():
        if not found.name.startswith("plan/"):
            smaller.put(found.name, local_store.read(found.name))
    report = verify(smaller)
    assert report.duplicated == 6
    assert "shard 2: has samples but is not planned" in report.problems


def test_masks_of_other_images_are_told(local_store: ObjectStore, photos: str) -> None:
    plan_pictures(local_store, photos, 4)
    other = commit_images(local_store, 0, digits="9" * 16, bad=["000000001"])
    commit_masks(local_store, other)
    commit_images(local_store, 0)
    report = verify(local_store)
    assert "shard 0: masks was made from another images record than the one in force" in report.problems


def test_a_dataset_of_imported_masks_alone_is_sound(store: ObjectStore, tmp_path: Path) -> None:
    """An image that the imported file doesn't name is not annotated: neither missing nor rejected."""
    plan_pictures(store, str(tmp_path / "photos"), 8)
    for shard in range(2):
        _commit_given(store, commit_images(store, shard), unnamed=["000000002"] if shard == 0 else [])
    publish(
        store, {"images": IMAGES, "given": "5" * 16}, settings={}, models={}, totals={}, created_utc="now"
    )
    report = verify(store, deep=True)
    assert report.ok, report.problems
    assert (report.annotated, report.unannotated, report.missing) == (7, 1, 0)
    assert count_rows(store, latest(store).row_set())["rejected"] == 0  # type: ignore[union-attr]

    store.delete(next(one.name for one in store.list(f"given/{'5' * 16}/commits/")))
    assert not verify(store).ok, "what it is meant to hold is gone"


def test_masks_beside_an_import_that_does_not_name_them_are_annotated(
    store: ObjectStore, tmp_path: Path
) -> None:
    plan_pictures(store, str(tmp_path / "photos"), 4)
    images = commit_images(store, 0)
    commit_masks(store, images, bad=["000000003"])
    _commit_given(store, images, unnamed=["000000002", "000000003"])
    made = {"images": IMAGES, "masks": MASKS, "given": "5" * 16}
    publish(store, made, settings={}, models={}, totals={}, created_utc="now")
    report = verify(store, deep=True)
    assert report.ok, report.problems
    assert report.unannotated == 0 and report.rejected == verify(store).rejected
    totals = count_rows(store, latest(store).row_set())  # type: ignore[union-attr]
    assert (totals["annotated"], totals["rejected"]) == (3, 1)


def _commit_given(store: ObjectStore, images: CommitRecord, *, unnamed: list[str]) -> None:
    """As an import writes it."""
    version = ColumnVersion(store, "given", "5" * 16)
    read = ColumnVersion(store, "images", images.fingerprint).read(images)
    samples = [mask_sample(sample.key) for sample in read if sample.key not in unnamed]
    attempt = new_attempt()
    data = write_shard(store, version.data_name(images.shard, attempt), samples)
    rejects = tuple(Reject(key, "not_annotated", "the given annotations do not name it") for key in unnamed)
    record = CommitRecord(
        column="given", fingerprint="5" * 16, shard=images.shard, attempt=attempt, data=data, index=None,
        num_read=len(samples) + len(rejects), num_written=len(samples), rejects=rejects,
        inputs={"images": images.sha256}, created_utc="now",
    )  # fmt: skip
    version.commit(record)
