from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.images import StoredImage, read_images, stored_image, to_sample
from maskmill.storage.errors import DamagedObject, ObjectNotFound, SourceChanged
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.shards import Sample
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import commit_images, plan_pictures
from tests.storage.plan.test_make_plan import make_tar


@pytest.mark.parametrize("by_reference", [False, True])
def test_pictures_come_back_copied_or_not(store: ObjectStore, tmp_path: Path, by_reference: bool) -> None:
    plan_pictures(store, str(tmp_path / "photos"), 6)
    record = commit_images(store, 0, bad=["000000002"], by_reference=by_reference)
    found = list(read_images(ColumnVersion(store, "images", record.fingerprint), record))
    assert [(one.key, one.image_id, one.jpeg) for one in found] == [
        ("000000001", 1, b"picture 0"),
        ("000000003", 3, b"picture 2"),
        ("000000004", 4, b"picture 3"),
    ]
    assert found[0] == StoredImage(
        "000000001", 1, b"picture 0", 4, 3, None, f"{tmp_path}/photos/0000.jpg", "", by_reference
    )


def test_tars_are_read_through_references(store: ObjectStore, tmp_path: Path) -> None:
    content = {f"{index:03d}.jpg": f"picture {index}".encode() * 99 for index in range(150)}
    (tmp_path / "a.tar").write_bytes(make_tar({"000.txt": "süß \U0001f431".encode(), **content}))
    make_plan(store, [str(tmp_path / "a.tar")], shard_size=1000)
    record = commit_images(store, 0, by_reference=True)
    found = list(read_images(ColumnVersion(store, "images", record.fingerprint), record))
    assert [one.jpeg for one in found] == list(content.values())
    assert (found[0].caption, found[0].source) == ("süß \U0001f431", f"{tmp_path}/a.tar::000.jpg")
    assert record.data.size_bytes < 300_000, "no copy of the pictures"


def test_a_source_that_changed_is_noticed(local_store: ObjectStore, tmp_path: Path) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 4)
    record = commit_images(local_store, 0, by_reference=True)
    version = ColumnVersion(local_store, "images", record.fingerprint)
    open_store(tmp_path / "photos").put("0002.jpg", b"retouched")
    with pytest.raises(SourceChanged, match=r"0002\.jpg"):
        list(read_images(version, record))
    (tmp_path / "photos" / "0002.jpg").unlink()
    with pytest.raises(ObjectNotFound, match=r"0002\.jpg"):
        list(read_images(version, record))


def test_a_damaged_reference_is_held_against_its_tar(local_store: ObjectStore, tmp_path: Path) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 1)
    record = commit_images(local_store, 0, by_reference=True)
    version, name = ColumnVersion(local_store, "images", record.fingerprint), record.data.name
    whole = local_store.read(name)
    for place in range(whole.index(b"{"), whole.index(b"}") + 1):
        local_store.put(name, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(DamagedObject, match=re.escape(name)):
            list(read_images(version, record))
        local_store.put(name, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DamagedObject, match=re.escape(name)):
            list(read_images(version, record))


def test_a_sample_says_where_it_came_from(local_store: ObjectStore, tmp_path: Path) -> None:
    plan_pictures(local_store, str(tmp_path / "photos"), 1)
    (image,) = load_plans(local_store).images(0)
    sample = to_sample(image, jpeg=b"jpeg", width=1500, height=2250, converted="png+resized")
    found = stored_image(sample)
    assert (found.width, found.height, found.converted, found.by_reference) == (
        1500,
        2250,
        "png+resized",
        False,
    )
    assert to_sample(image, jpeg=None, width=1, height=1).files.keys() == {"json"}


@pytest.mark.parametrize("files", [{}, {"json": b"{"}, {"json": b"[]"}, {"json": b"{}"}])
def test_a_sample_that_describes_no_image_is_damage(files: dict[str, bytes]) -> None:
    with pytest.raises(DamagedObject, match="image k"):
        stored_image(Sample("k", files))
