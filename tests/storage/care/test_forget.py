from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.care import forget as forgetting
from maskmill.storage.care.forget import forget, plan_forget
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.columns import ColumnVersion, list_versions
from maskmill.storage.dataset.generations import latest, load_generation
from maskmill.storage.dataset.join import join
from maskmill.storage.drivers.lease import announce
from maskmill.storage.errors import DamagedObject, DatasetError, Forgotten, InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import FOLDER, load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import CREATED, IMAGES, MASKS, commit_images, commit_masks, make_dataset

KEY, SHARD = "000000007", 1  # with a mask record


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return str(tmp_path / "photos")


def bytes_with(store: ObjectStore, needle: bytes) -> list[str]:
    """Data objects that hold these bytes."""
    return [info.name for info in store.list() if "/data/" in info.name and needle in store.read(info.name)]


def kept(store: ObjectStore) -> list[str]:
    """The names of all objects but those that say who holds the lock."""
    return [info.name for info in store.list() if not info.name.startswith("locks/")]


def picture_of(store: ObjectStore, key: str) -> bytes:
    version = ColumnVersion(store, "images", IMAGES)
    record = version.record(load_plans(store).shard_of(key))
    assert record is not None
    return next(sample.files["jpg"] for sample in version.read(record) if sample.key == key)


def test_a_forgotten_image_is_gone_with_all_that_came_from_it(store: ObjectStore, photos: str) -> None:
    before = make_dataset(store, photos)
    commit_masks(store, ColumnVersion(store, "images", IMAGES).record(SHARD), digits="3" * 16)  # type: ignore[arg-type]
    picture = picture_of(store, KEY)
    asked = plan_forget(store, ["7"])
    assert (asked.keys, asked.shards, asked.generations, asked.done) == ((KEY,), (SHARD,), (1,), False)
    assert asked.versions == (f"images/{IMAGES}", f"masks/{MASKS}", f"masks/{'3' * 16}")
    assert asked.sources == (f"{photos}/0006.jpg",)
    report = forget(store, [KEY], created_utc=CREATED)
    assert (report.num_records, report.generation) == (3, 2)
    assert bytes_with(store, picture) == []
    assert bytes_with(store, KEY.encode()) == []
    after = latest(store)
    assert after is not None and after.made_by == "forget"
    keys = [sample.key for sample in join(store, after)]
    assert keys == [sample.key for sample in join(store, load_generation(store, 2))]
    assert KEY not in keys and len(keys) == 8
    images, masks = (
        ColumnVersion(store, column, digits).record(SHARD)
        for column, digits in (("images", IMAGES), ("masks", MASKS))
    )
    assert images is not None and masks is not None
    assert [(one.key, one.reason) for one in images.rejects] == [(KEY, "forgotten")]
    assert (masks.inputs, masks.repair, masks.num_read) == ({"images": images.sha256}, 1, 3)
    report2 = verify(store, deep=True)
    assert report2.ok, report2.problems
    assert (report2.images, report2.annotated, report2.rejected) == (12, 7, 5)
    assert after.totals == {"masks": before.totals["masks"] - 1}
    with pytest.raises(Forgotten, match="later generations"):
        list(join(store, before))
    assert len(list(join(store, before, shards=[0, 2]))) == 5


def test_forgetting_again_changes_nothing(local_store: ObjectStore, photos: str) -> None:
    make_dataset(local_store, photos)
    forget(local_store, [KEY, "1"], created_utc=CREATED)
    before = kept(local_store)
    assert plan_forget(local_store, ["1", KEY]).done
    report = forget(local_store, ["1", KEY], created_utc=CREATED)
    assert (report.num_records, report.num_removed, report.generation) == (0, 0, 2)
    assert kept(local_store) == before


def test_a_forgotten_image_is_not_taken_in_again(local_store: ObjectStore, photos: str) -> None:
    make_dataset(local_store, photos)
    forget(local_store, [KEY], created_utc=CREATED)
    assert make_plan(local_store, [photos], shard_size=4).number is None
    open_store(photos).put("copy.jpg", b"picture 6")
    summary = make_plan(local_store, [photos], shard_size=4)
    assert (summary.num_new_images, summary.rejects_by_reason["forgotten"]) == (0, 1)
    assert load_plans(local_store).forgotten == {KEY}


class Stopped(Exception):
    """Somebody pulled the plug."""


STEPS = 12


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopped_anywhere_the_same_call_finishes(
    local_store: ObjectStore, photos: str, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stops before the n-th change of the store."""
    make_dataset(local_store, photos)
    picture, left = picture_of(local_store, KEY), step
    kind = type(local_store)

    def stopping(method: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal left
            if not str(args[1]).startswith(("drivers/", "locks/")):
                left -= 1
                if left == 0:
                    raise Stopped
            return method(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("put_if_absent", "delete", "open_write"):
            patch.setattr(kind, name, stopping(getattr(kind, name)))
        try:
            forget(local_store, [KEY], created_utc=CREATED)
            assert step == STEPS - 1, "the last step is beyond the end"
        except Stopped:
            assert not plan_forget(local_store, [KEY]).done
    forget(local_store, [KEY], created_utc=CREATED)
    assert plan_forget(local_store, [KEY]).done
    assert bytes_with(local_store, picture) == []
    assert verify(local_store, deep=True).ok
    assert latest(local_store).number == 2  # type: ignore[union-attr]


def test_orphans_of_the_shard_go_too(local_store: ObjectStore, photos: str) -> None:
    make_dataset(local_store, photos)
    version = ColumnVersion(local_store, "images", IMAGES)
    for shard in (0, SHARD):
        local_store.put(version.data_name(shard, "lost"), b"picture 6")
    temp = Path(local_store.root, version.folder, "data", ".tmp-killed")
    temp.write_bytes(b"picture 6")
    assert forget(local_store, [KEY], created_utc=CREATED).num_removed == 5
    assert not temp.exists()
    assert version.data_name(0, "lost") in [info.name for info in local_store.list()]


def test_what_a_driver_that_begins_later_has_in_hand_stays(
    local_store: ObjectStore, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its objects and tables have no record yet, and it knows of the mark: they hold nothing forgotten."""
    make_dataset(local_store, photos)
    key = load_plans(local_store).keys_of(0)[0]
    folder = next(iter(list_versions(local_store, "masks"))).folder
    names = [f"{FOLDER}/000009.0123456789abcdef.parquet", f"{folder}/data/000000.0123456789abcdef.tar"]
    lost = f"{folder}/data/000000.fedcba9876543210.tar"
    local_store.put(lost, b"of a killed writer")
    refuse = forgetting._refuse_company

    def then_begin(*given: Any) -> None:
        refuse(*given)
        for name in names:
            local_store.put(name, b"in hand")

    monkeypatch.setattr(forgetting, "_refuse_company", then_begin)
    forget(local_store, [key], created_utc=CREATED)
    assert [local_store.read(name) for name in names] == [b"in hand"] * 2
    assert not any(info.name == lost for info in local_store.list(folder))


def test_without_a_generation_the_commits_alone_are_rewritten(local_store: ObjectStore, photos: str) -> None:
    from tests.storage.datasets import plan_pictures

    plan_pictures(local_store, photos, 4)
    commit_images(local_store, 0)
    report = forget(local_store, ["2"], created_utc=CREATED)
    assert (report.generation, report.num_records) == (None, 1)
    assert verify(local_store, deep=True).rejected == 3


def test_beside_another_driver_it_marks_and_removes_nothing(local_store: ObjectStore, photos: str) -> None:
    """The mark comes before the look: who starts after the look has seen the mark."""
    make_dataset(local_store, photos)
    before = [name for name in kept(local_store) if not name.startswith("plan/")]
    with (
        announce(local_store, "generate"),
        pytest.raises(DatasetError, match=f"wait for it.*forget .* {KEY}"),
    ):
        forget(local_store, [KEY], created_utc=CREATED)
    assert load_plans(local_store).forgotten == {KEY}
    assert [name for name in kept(local_store) if not name.startswith("plan/")] == before
    assert forget(local_store, [KEY], created_utc=CREATED).generation == 2


@pytest.mark.parametrize("keys", [[], ["99"], ["000000000"], ["nobody"], [KEY, "11"]])
def test_unknown_keys_are_refused_before_anything_is_done(
    local_store: ObjectStore, photos: str, keys: list[str]
) -> None:
    make_dataset(local_store, photos)
    for call in (plan_forget, lambda store, names: forget(store, names, created_utc=CREATED)):
        with pytest.raises(InputError, match="key"):
            call(local_store, keys)
    assert load_plans(local_store).forgotten == frozenset()


def test_a_damaged_shard_is_repaired_first(local_store: ObjectStore, photos: str) -> None:
    generation = make_dataset(local_store, photos)
    (row,) = [row for row in generation.rows() if (row.shard, row.column) == (SHARD, "masks")]
    local_store.put(row.data.name, b"cut")
    with pytest.raises(DamagedObject):
        forget(local_store, [KEY], created_utc=CREATED)
    local_store.put(row.record, b"{}")
    with pytest.raises(DamagedObject, match="--repair"):
        forget(local_store, [KEY], created_utc=CREATED)
    assert forgetting.load_plans(local_store).forgotten == {KEY}


def test_the_caption_that_came_with_it_is_gone_from_the_plan(local_store: ObjectStore, photos: str) -> None:
    place = open_store(photos)
    for number in range(6):
        place.put(f"{number}.jpg", f"picture {number}".encode())
        place.put(f"{number}.txt", f"words of {number}".encode())
    make_plan(local_store, [photos], shard_size=4)
    commit_images(local_store, 0)
    forget(local_store, ["2"], created_utc=CREATED)
    plan = load_plans(local_store)
    captions = [image.caption for shard in range(2) for image in plan.images(shard)]
    assert captions == ["words of 0", None, "words of 2", "words of 3", "words of 4", "words of 5"]
    assert [info.name for info in local_store.list() if b"words of 1" in local_store.read(info.name)] == []
    tables = [info.name for info in local_store.list("plan/") if info.name.endswith(".parquet")]
    assert len(tables) == 1, "the table with the caption is removed"
    assert plan_forget(local_store, ["2"]).done
    place.put("6.jpg", b"picture 6")
    assert make_plan(local_store, [photos], shard_size=4).num_new_images == 1
    forget(local_store, ["6"], created_utc=CREATED)
    assert load_plans(local_store).images(1)[1].caption is None
    assert not verify(local_store, deep=True).damaged
