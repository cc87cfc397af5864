from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from maskmill.storage.errors import (
    DamagedObject,
    DatasetError,
    InputError,
    ObjectNotFound,
    OutOfSpace,
    SourceChanged,
)
from maskmill.storage.json_text import load_object
from maskmill.storage.plan import tables
from maskmill.storage.plan.make_plan import PlanSummary, make_plan
from maskmill.storage.plan.plan import Plan, PlanReject, load_plans, part_name
from maskmill.storage.plan.sources import read_source, read_sources
from maskmill.storage.plan.tables import _metadata, group_images
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.storage.stores.promise import PROMISE


@pytest.fixture(params=["local", "s3"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty place for inputs."""
    if request.param == "local":
        return open_store(tmp_path / "photos")
    return open_store(f"{request.getfixturevalue('s3_bucket')}/photos")


@pytest.fixture
def dataset(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "dataset")


def fill(place: ObjectStore, content: Mapping[str, bytes]) -> str:
    for name, data in content.items():
        place.put(name, data)
    return place.root


def pictures(number: int, start: int = 0) -> dict[str, bytes]:
    return {f"{index:04d}.jpg": f"picture {index}".encode() for index in range(start, start + number)}


def make_tar(content: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def plan_it(dataset: ObjectStore, *inputs: str, shard_size: int = 4, limit: int | None = None) -> PlanSummary:
    return make_plan(dataset, inputs, shard_size=shard_size, limit=limit, num_threads=3)


def labels(plan: Plan) -> list[str]:
    images = [image for shard in range(plan.num_shards) for image in plan.images(shard)]
    assert [image.image_id for image in images] == list(range(1, len(images) + 1))
    assert [image.key for image in images] == [f"{image.image_id:09d}" for image in images]
    return [image.label for image in images]


def test_images_get_keys_and_shards_in_order(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, {**pictures(10), "0003.txt": b" a cat\n"})
    summary = plan_it(dataset, top)
    assert (summary.number, summary.num_new_images, summary.num_images, summary.num_shards) == (1, 10, 10, 3)
    plan = load_plans(dataset)
    assert labels(plan) == [f"{top}/{index:04d}.jpg" for index in range(10)]
    assert [plan.num_images_of(shard) for shard in range(3)] == [4, 4, 2]
    assert plan.keys_of(2) == ("000000009", "000000010")
    image = plan.images(0)[3]
    assert (image.caption, image.size_bytes, image.offset, image.in_tar) == ("a cat", 9, 0, False)
    assert image.sha256 == hashlib.sha256(b"picture 3").hexdigest()
    assert read_source(image) == b"picture 3"
    assert plan.images(0)[2].caption is None


def test_unchanged_inputs_make_no_new_plan(dataset: ObjectStore, photos: ObjectStore) -> None:
    content = {
        **pictures(5),
        "twice.jpg": b"picture 1",
        "empty.jpg": b"",
        "in.tar": make_tar(pictures(3, 50)),
    }
    top = fill(photos, content)
    first = plan_it(dataset, top)
    written = [info.name for info in dataset.list()]
    second = plan_it(dataset, top)
    assert second == replace(first, number=None, num_new_images=0, skipped_by_ending=second.skipped_by_ending)
    assert [info.name for info in dataset.list()] == written


def test_unchanged_files_are_not_read_again(dataset: ObjectStore, tmp_path: Path) -> None:
    top = Path(fill(open_store(tmp_path / "photos"), {**pictures(3), "in.tar": make_tar(pictures(3, 50))}))
    plan_it(dataset, str(top))
    for path in top.iterdir():
        found = path.stat()
        path.write_bytes(bytes(found.st_size))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert plan_it(dataset, str(top)).number is None, "same size and time: taken as unchanged, not hashed"


def test_new_files_make_a_plan_on_top(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, pictures(6))
    plan_it(dataset, top)
    before = load_plans(dataset)
    fill(photos, pictures(9))
    summary = plan_it(dataset, top, shard_size=2)
    assert (summary.number, summary.num_new_images, summary.num_images, summary.num_shards) == (2, 3, 9, 4)
    after = load_plans(dataset)
    assert [after.images(shard) for shard in range(2)] == [before.images(shard) for shard in range(2)]
    assert [after.num_images_of(shard) for shard in range(4)] == [4, 2, 2, 1]
    assert labels(after)[6:] == [f"{top}/{index:04d}.jpg" for index in (6, 7, 8)]


def test_doubles_are_rejected_with_the_first_ones_key(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(
        photos,
        {"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"1", "t.tar": make_tar({"d.jpg": b"2", "e.jpg": b"5"})},
    )
    summary = plan_it(dataset, top)
    assert (summary.num_images, summary.rejects_by_reason) == (3, {"duplicate": 2})
    plan = load_plans(dataset)
    assert plan.rejects == (
        PlanReject(f"{top}/c.jpg", "duplicate", "the same bytes as 000000001"),
        PlanReject(f"{top}/t.tar::d.jpg", "duplicate", "the same bytes as 000000002"),
    )
    fill(photos, {"f.jpg": b"5"})
    assert plan_it(dataset, top).rejects_by_reason == {"duplicate": 3}, "doubles of earlier plans too"
    assert load_plans(dataset).num_images == 3


def test_one_file_reached_twice_is_one_image(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, pictures(3))
    summary = plan_it(dataset, top, f"{top}/0001.jpg", top)
    assert (summary.num_images, summary.num_rejects) == (3, 0)


def test_a_touched_file_stays_what_it_is(dataset: ObjectStore, tmp_path: Path) -> None:
    top = fill(open_store(tmp_path / "photos"), pictures(3))
    plan_it(dataset, top)
    os.utime(f"{top}/0001.jpg", ns=(1, 1))
    summary = plan_it(dataset, top)
    assert (summary.number, summary.num_images, summary.num_rejects) == (None, 3, 0)


def test_a_changed_file_is_a_new_image(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, pictures(3))
    plan_it(dataset, top)
    old = load_plans(dataset).images(0)[1]
    fill(photos, {"0001.jpg": b"retouched"})
    summary = plan_it(dataset, top)
    assert (summary.number, summary.num_new_images, summary.num_images) == (2, 1, 4)
    with pytest.raises(SourceChanged, match="put the planned file back"):
        read_source(old)
    assert read_source(load_plans(dataset).images(1)[0]) == b"retouched"


def test_tars_are_planned_in_place(dataset: ObjectStore, photos: ObjectStore) -> None:
    content = {
        "a.txt": b"a cat",
        "a.jpg": b"1" * 700,
        "b.json": b'{"caption": "from json"}',
        "b.png": b"2" * 2_000_000,
        "b.txt": b"from txt",
        "../../c.JPG": b"3",
        "/d.jpg": b"4",
        "e.cls": b"5",
        "._f.jpg": b"6",
        "g.json": b"{broken",
        "g.jpg": b"7",
        "h.jpg": b"",
    }
    data = make_tar(content)
    top = fill(photos, {"x.tar": data})
    summary = plan_it(dataset, f"{top}/x.tar")
    assert summary.rejects_by_reason == {"empty_file": 1}
    assert summary.skipped_by_ending == {"(hidden)": 1, ".cls": 1}
    plan = load_plans(dataset)
    images = [image for shard in range(plan.num_shards) for image in plan.images(shard)]
    assert [(image.member, image.caption) for image in images] == [
        ("a.jpg", "a cat"),
        ("b.png", "from txt"),
        ("../../c.JPG", None),
        ("/d.jpg", None),
        ("g.jpg", None),
    ]
    assert {image.source for image in images} == {f"{top}/x.tar"}
    for image in images:
        assert data[image.offset : image.offset + image.size_bytes] == content[image.member]
        assert read_source(image) == content[image.member]
    assert [found.data for found in read_sources(images)] == [content[image.member] for image in images]


def test_a_cut_tar_keeps_its_complete_members(dataset: ObjectStore, photos: ObjectStore) -> None:
    data = make_tar({f"{index}.jpg": bytes([index]) * 1000 for index in range(5)})
    top = fill(
        photos,
        {"cut.tar": data[: 3 * 1536 + 600], "whole.tar": make_tar({"w.jpg": b"w"}), "not.tar": b"x" * 900},
    )
    summary = plan_it(dataset, top)
    assert (summary.num_images, summary.rejects_by_reason) == (4, {"tar_damaged": 2})
    plan = load_plans(dataset)
    assert labels(plan) == [f"{top}/cut.tar::{index}.jpg" for index in range(3)] + [f"{top}/whole.tar::w.jpg"]
    cut, nothing = plan.rejects
    assert (cut.source, nothing.source) == (f"{top}/cut.tar::3.jpg", f"{top}/not.tar")
    assert "member of 1000 bytes" in cut.detail
    assert plan_it(dataset, top).number is None


def test_a_tar_cut_between_members_is_told(dataset: ObjectStore, photos: ObjectStore) -> None:
    data = make_tar({f"{index}.jpg": bytes([index]) * 1000 for index in range(5)})
    top = fill(photos, {"cut.tar": data[: 3 * 1536]})
    assert plan_it(dataset, top).rejects_by_reason == {"tar_damaged": 1}
    assert "without an end marker" in load_plans(dataset).rejects[0].detail


def test_a_large_tar_is_cut_into_shards(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, {"a.tar": make_tar(pictures(1000)), "b.tar": make_tar(pictures(1000, 1000))})
    assert plan_it(dataset, top, shard_size=300).num_shards == 7
    plan = load_plans(dataset)
    assert labels(plan) == [f"{top}/{'ab'[index // 1000]}.tar::{index:04d}.jpg" for index in range(2000)]


def test_problems_are_recorded_and_forgotten_when_cured(dataset: ObjectStore, tmp_path: Path) -> None:
    top = fill(
        open_store(tmp_path / "photos"), {**pictures(2), "list.txt": b"0000.jpg\n0001.jpg\nlate.jpg\n"}
    )
    manifest = f"{top}/list.txt"
    assert plan_it(dataset, manifest).rejects_by_reason == {"missing": 1}
    assert plan_it(dataset, manifest).number is None
    fill(open_store(top), {"late.jpg": b""})
    assert plan_it(dataset, manifest).rejects_by_reason == {"empty_file": 1}
    fill(open_store(top), {"late.jpg": b"here at last"})
    summary = plan_it(dataset, manifest)
    assert (summary.number, summary.num_images, summary.num_rejects) == (3, 3, 0)
    assert load_plans(dataset).rejects == ()
    Path(top, "0000.jpg").unlink()
    summary = plan_it(dataset, manifest)
    assert (summary.number, summary.num_images, summary.num_rejects) == (None, 3, 0)
    assert summary.skipped_by_ending == {"(planned before, now missing)": 1}


def test_limit_takes_the_first_and_can_be_raised(dataset: ObjectStore, photos: ObjectStore) -> None:
    content = {**pictures(6), "0001.jpg": b"picture 0", "x.tar": make_tar(pictures(5, 50))}
    top = fill(photos, content)
    assert plan_it(dataset, top, limit=3).num_images == 3
    assert plan_it(dataset, top, limit=3).number is None
    assert labels(load_plans(dataset)) == [f"{top}/{index:04d}.jpg" for index in (0, 2, 3)], (
        "rejects don't count"
    )
    assert plan_it(dataset, top, limit=7).num_new_images == 4
    assert plan_it(dataset, top, limit=7).number is None
    assert plan_it(dataset, top).num_images == 10
    assert labels(load_plans(dataset))[-3:] == [f"{top}/x.tar::{index:04d}.jpg" for index in (52, 53, 54)]


def test_progress_ends_with_the_total(dataset: ObjectStore, tmp_path: Path) -> None:
    top = fill(open_store(tmp_path / "photos"), pictures(250))
    seen: list[int] = []
    make_plan(dataset, [top], shard_size=10, progress=seen.append)
    assert seen == [100, 200, 250]


@pytest.mark.parametrize("arguments", [{"shard_size": 0}, {"shard_size": 1, "limit": 0}])
def test_senseless_numbers_are_refused(dataset: ObjectStore, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_plan(dataset, ["x"], **arguments)  # type: ignore[arg-type]


def test_inputs_without_any_usable_image_leave_no_plan(dataset: ObjectStore, tmp_path: Path) -> None:
    top = fill(open_store(tmp_path / "photos"), {"bad.tar": b"no tar", "list.txt": b"gone.jpg"})
    for address, told in ((f"{top}/bad.tar", "tar_damaged"), (f"{top}/list.txt", "gone.jpg: missing")):
        with pytest.raises(InputError, match=told):
            plan_it(dataset, address)
    assert [info.name for info in dataset.list()] == [PROMISE]


def test_a_dataset_inside_its_input_is_passed_over(tmp_path: Path) -> None:
    top = fill(open_store(tmp_path / "photos"), pictures(2))
    dataset = open_store(tmp_path / "photos" / "out")
    fill(open_store(dataset.root), {"images/x.jpg": b"ours"})
    assert plan_it(dataset, top).num_images == 2


def test_row_groups_hold_whole_shards(
    dataset: ObjectStore, photos: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MIN_GROUP_ROWS", 20)
    top = fill(photos, {"a.tar": make_tar(pictures(100))})
    plan_it(dataset, top, shard_size=7)
    plan = load_plans(dataset)
    assert plan.parts[0].row_group_shards == (0, 3, 6, 9, 12)
    assert labels(plan) == [f"{top}/a.tar::{index:04d}.jpg" for index in range(100)]


def test_two_drivers_make_one_plan(dataset: ObjectStore, tmp_path: Path) -> None:
    top = fill(open_store(tmp_path / "photos"), pictures(30))
    barrier = threading.Barrier(4)

    def run(_: int) -> int | None:
        barrier.wait()
        return plan_it(dataset, top).number

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(run, range(4)))
    assert sorted(numbers, key=str) == [1, None, None, None]
    assert load_plans(dataset).num_images == 30
    assert len(list(dataset.list("plan/"))) == 2, "the losers' rows are removed"


def test_plans_travel_between_processes(dataset: ObjectStore, photos: ObjectStore) -> None:
    plan_it(dataset, fill(photos, pictures(5)))
    plan = load_plans(dataset)
    again = pickle.loads(pickle.dumps(plan))
    assert again.images(1) == plan.images(1)


def test_no_plan_is_an_empty_plan(dataset: ObjectStore) -> None:
    plan = load_plans(dataset)
    assert (plan.num_shards, plan.num_images, plan.num_rejects, plan.rejects) == (0, 0, 0, ())
    with pytest.raises(DatasetError, match="not planned"):
        plan.images(0)


def test_a_full_disk_leaves_no_plan(tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MIN_GROUP_ROWS", 20)
    names = [f"{index} {os.urandom(60).hex()}.jpg" for index in range(500)]
    top = fill(open_store(tmp_path / "photos"), {name: name.encode() for name in names})
    (tiny_disk / "ballast").write_bytes(bytes(1000 * 1024))
    dataset = open_store(tiny_disk / "dataset")
    with pytest.raises(OutOfSpace, match="free some space"):
        plan_it(dataset, top, shard_size=10)
    assert [info.name for info in dataset.list()] == [PROMISE]
    (tiny_disk / "ballast").unlink()
    assert plan_it(dataset, top, shard_size=10).num_images == 500


# Damage


def forget_rows() -> None:
    """A process that reads the dataset for the first time."""
    group_images.cache_clear()
    _metadata.cache_clear()


@pytest.fixture
def planned(dataset: ObjectStore, tmp_path: Path) -> ObjectStore:
    top = fill(open_store(tmp_path / "photos"), {**pictures(6), "z.jpg": b"picture 0"})
    plan_it(dataset, top)
    fill(open_store(top), pictures(9))
    plan_it(dataset, top)
    return dataset


@pytest.mark.parametrize("spoil", [b"", b"{}", b"[1]", b'{"format_version": 9}'])
def test_a_damaged_plan_is_named(planned: ObjectStore, spoil: bytes) -> None:
    planned.put(part_name(1), spoil)
    with pytest.raises(DamagedObject, match=r"plan/000001\.json"):
        load_plans(planned)


def test_a_removed_plan_is_noticed(planned: ObjectStore) -> None:
    planned.delete(part_name(1))
    with pytest.raises(DamagedObject, match="removed or added"):
        load_plans(planned)


def test_damaged_rows_are_noticed(planned: ObjectStore) -> None:
    part = load_plans(planned).parts[0]
    assert part.rows is not None
    data = planned.read(part.rows.written.name)
    planned.put(part.rows.written.name, data[:-1])
    forget_rows()
    with pytest.raises(DamagedObject, match="its record says"):
        load_plans(planned).images(0)


def test_flipped_bytes_in_the_rows_never_go_unnoticed(planned: ObjectStore) -> None:
    part = load_plans(planned).parts[0]
    assert part.rows is not None
    good = load_plans(planned).images(0)
    data = planned.read(part.rows.written.name)
    for position in range(4, len(data), 97):
        flipped = bytearray(data)
        flipped[position] ^= 0x55
        planned.put(part.rows.written.name, bytes(flipped))
        forget_rows()
        try:
            found = load_plans(planned).images(0)
        except DamagedObject:
            continue
        assert found == good, f"byte {position}"


def test_read_sources_gives_each_image_its_own_error(dataset: ObjectStore, photos: ObjectStore) -> None:
    content = pictures(6)
    top = fill(photos, {"a.jpg": b"a", "b.jpg": b"b", "c.tar": make_tar(content)})
    plan_it(dataset, top, shard_size=100)
    images = load_plans(dataset).images(0)
    photos.delete("a.jpg")
    damaged = bytearray(photos.read("c.tar"))
    damaged[images[4].offset] ^= 1
    photos.put("c.tar", bytes(damaged))
    found = list(read_sources(images))
    assert [one.image for one in found] == list(images)
    assert isinstance(found[0].error, ObjectNotFound)
    assert isinstance(found[4].error, SourceChanged)
    assert [one.data for one in found if one.error is None] == [
        b"b",
        *(content[i.member] for i in images[2:] if i is not images[4]),
    ]
    photos.put("c.tar", photos.read("c.tar")[: images[5].offset + 2])
    errors = [type(one.error) for one in read_sources(images[2:])]
    assert errors == [type(None), type(None), SourceChanged, SourceChanged, SourceChanged, SourceChanged]


def test_a_grown_file_is_noticed(dataset: ObjectStore, photos: ObjectStore) -> None:
    top = fill(photos, {"a.jpg": b"a"})
    plan_it(dataset, top)
    photos.put("a.jpg", b"ab")
    with pytest.raises(SourceChanged):
        read_source(load_plans(dataset).images(0)[0])


def test_plans_written_before_are_read(planned: ObjectStore) -> None:
    """They had a field that was always empty, and an older version knew of nothing forgotten."""
    old = load_object(planned.read(part_name(1)))
    del old["forgotten"], old["rewritten"]
    planned.put(part_name(1), json.dumps(old | {"listed_tars": []}).encode())
    plan = load_plans(planned)
    assert plan.num_images == 9 and plan.forgotten == frozenset()


def test_a_plan_of_another_format_is_refused(planned: ObjectStore) -> None:
    old = load_object(planned.read(part_name(1)))
    planned.put(part_name(1), json.dumps(old | {"format_version": 3}).encode())
    with pytest.raises(DamagedObject, match="format 3; this version reads 2"):
        load_plans(planned)


def test_scanned_tars_are_remembered_in_a_table(dataset: ObjectStore, tmp_path: Path) -> None:
    photos = open_store(tmp_path / "photos")
    top = fill(photos, {f"{index}.tar": make_tar(pictures(3, 10 * index)) for index in range(3)})
    plan_it(dataset, top)
    plan = load_plans(dataset)
    assert [(tar.source, tar.num_images) for tar in plan.iter_tars()] == [
        (f"{top}/{index}.tar", 3) for index in range(3)
    ]
    before = [info.name for info in dataset.list("plan/")]
    fill(photos, {"again.tar": photos.read("0.tar")})
    assert plan_it(dataset, top).rejects_by_reason == {"duplicate": 3}
    assert plan_it(dataset, top).number is None
    assert len([info.name for info in dataset.list("plan/")]) == len(before) + 3, "rejects, tars and the plan"


def test_every_planned_key_has_its_shard(planned: ObjectStore) -> None:
    plan = load_plans(planned)
    for shard in range(plan.num_shards):
        assert {plan.shard_of(key) for key in plan.keys_of(shard)} == {shard}
    for key in ("000000000", "1", "000000010", "x", "-00000001"):
        with pytest.raises(DatasetError, match="ever planned"):
            plan.shard_of(key)
