"""A shard through the stages, without ray."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.annotation import from_sa1b
from maskmill.storage.dataset.images import read_images
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.errors import DamagedObject, DatasetError, InputError, OutOfSpace
from maskmill.storage.plan.sources import PlannedImage, read_source
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.run.in_hand import last_announced
from maskmill.workers.run.spec import IMAGES, MASKS, ShardTask
from maskmill.workers.shard.column_writer import ColumnWriter
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.turn import CRASHED, run_shard
from maskmill.workers.stages.base import EncodedSample
from maskmill.workers.stages.build import Stages
from tests.fakes import (
    FULL_DISK,
    IS_A_BUG,
    NEEDS_MEMORY,
    FakeMasks,
    build_fake_stages,
    jpeg_bytes,
    write_pictures,
)

if TYPE_CHECKING:
    from tests.workers.conftest import Dataset

MakeDataset = Callable[..., "Dataset"]


def run(data: Dataset, masks: FakeMasks | None = None, shard: int = 0, **task: object) -> Stages:
    stages = build_fake_stages(data.spec, masks or FakeMasks())
    run_shard(stages, ShardTask(**{"shard": shard, "attempt": "a" * 16, **task}))  # type: ignore[arg-type]
    return stages


def data_files(root: str) -> dict[str, bytes]:
    """Everything but records, by name without the attempt."""
    found = {}
    for path in sorted(Path(root).rglob("*")):
        if path.is_file() and path.parent.name in ("data", "index"):
            shard, _, ending = path.name.split(".")
            found[f"{path.parent.relative_to(root)}/{shard}.{ending}"] = path.read_bytes()
    return found


def test_a_shard_becomes_images_masks_and_index(make_dataset: MakeDataset, tmp_path: Path) -> None:
    data = make_dataset(7, 4)
    stages = build_fake_stages(data.spec, FakeMasks())
    meter = Meter()
    reports = [
        run_shard(stages, ShardTask(shard=i, attempt=str(i) * 16), meter) for i in range(data.num_shards)
    ]
    images, masks = data.contents(IMAGES), data.contents(MASKS)
    assert list(images) == list(masks) == [f"{i:09d}" for i in range(1, 8)]
    for i, (key, files) in enumerate(images.items()):
        assert files["jpg"] == (tmp_path / "inputs" / f"{i:05d}.jpg").read_bytes()
        annotated = from_sa1b(json.loads(masks[key]["json"]))
        expected = FakeMasks()([decode_image(files["jpg"])])[0]
        assert annotated == expected and annotated.annotations
    assert [report.num_images for report in reports] == [4, 3]
    assert sum(report.num_masks for report in reports) == sum(
        len(json.loads(files["json"])["annotations"]) for files in masks.values()
    )
    assert {"images.read", "images.normalise", "masks.json", "masks.write"} <= reports[
        0
    ].seconds_by_step.keys()
    record = data.record(MASKS, 1)
    assert record.inputs == {IMAGES: data.record(IMAGES, 1).sha256} and record.models == {"segmenter": "fake"}
    assert record.index is not None and record.index.num_samples == reports[1].num_masks
    assert meter.progress().shard is None


def test_done_again_is_equal_byte_for_byte(make_dataset: MakeDataset) -> None:
    first = make_dataset(9, 5, name="first")
    second = make_dataset(9, 5, name="second", decode_threads=4, encode_threads=3)
    for shard in range(2):
        run(first, FakeMasks(seconds=0.003), shard)
        run(second, FakeMasks(), shard, attempt="b" * 16, one_by_one=shard == 1)
    assert data_files(first.spec.root) == data_files(second.spec.root) != {}


def test_stored_images_give_the_masks_that_fresh_ones_gave(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """PNGs are decoded once as sources and once as the JPEG stored: annotations are of the latter, always."""
    (tmp_path / "inputs").mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "inputs" / f"{i}.png")
    fresh, stored = make_dataset(0, 3, name="fresh"), make_dataset(0, 3, name="stored")
    run(fresh)
    run(replace(stored, spec=replace(stored.spec, fingerprints={IMAGES: "0" * 16, MASKS: "2" * 16})))
    run(stored)  # another column version on the images committed before
    fresh_masks = fresh.contents(MASKS)
    assert fresh_masks == stored.contents(MASKS) and len(fresh_masks) == 3


def test_a_finished_shard_is_left_alone(make_dataset: MakeDataset) -> None:
    data = make_dataset(3, 3)
    stages = run(data)
    before = {path: path.stat().st_mtime_ns for path in Path(data.spec.root).rglob("*")}
    report = run_shard(stages, ShardTask(shard=0, attempt="c" * 16))
    assert report.already_done and not report.lost_race
    assert (report.num_images, report.num_annotated) == (3, 3) and report.num_masks > 0
    assert {path: path.stat().st_mtime_ns for path in Path(data.spec.root).rglob("*")} == before


def test_a_worker_may_be_older_than_the_plan(make_dataset: MakeDataset, tmp_path: Path) -> None:
    data = make_dataset(2, 2)
    stages = build_fake_stages(data.spec, FakeMasks())
    write_pictures(tmp_path / "inputs", 4)
    assert make_dataset(0, 2).num_shards == 2
    report = run_shard(stages, ShardTask(shard=1, attempt="a" * 16))
    assert report.num_annotated == 2
    with pytest.raises(DatasetError, match="shard 2 is not planned"):
        run_shard(stages, ShardTask(shard=2, attempt="b" * 16))


BAD = {
    "a text.jpg": (b"I am no image", "not_an_image"),
    "cut.jpg": (jpeg_bytes(np.zeros((64, 64, 3), np.uint8))[:-30], "truncated"),
    "tiny.jpg": (jpeg_bytes(np.zeros((4, 64, 3), np.uint8)), "too_small"),
}


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("images_per_batch", [1, 3])
def test_bad_samples_are_rejected_where_they_are_bad(
    make_dataset: MakeDataset, tmp_path: Path, images_per_batch: int, one_by_one: bool
) -> None:
    inputs = tmp_path / "inputs"
    write_pictures(inputs, 6, special={2: NEEDS_MEMORY})
    for name, (content, _) in BAD.items():
        (inputs / name).write_bytes(content)
    data = make_dataset(0, 100, name="bad", images_per_batch=images_per_batch)
    (inputs / "00004.jpg").unlink()
    (inputs / "00005.jpg").write_bytes(jpeg_bytes(np.zeros((64, 64, 3), np.uint8)))
    stages = build_fake_stages(data.spec, FakeMasks())
    report = run_shard(stages, ShardTask(shard=0, attempt="a" * 16, one_by_one=one_by_one))
    assert report.rejects == {
        "not_an_image": 1,
        "out_of_memory": 1,
        "source_changed": 1,
        "source_missing": 1,
        "too_small": 1,
        "truncated": 1,
    }
    assert list(data.rejects(MASKS).values()) == ["out_of_memory"]
    assert len(data.rejects(IMAGES)) == 5
    assert (report.num_images, report.num_annotated) == (9, 3)
    assert len(data.contents(IMAGES)) == 4 and len(data.contents(MASKS)) == 3


def test_a_shard_whose_sources_are_all_gone_is_not_committed(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    data = make_dataset(3, 3)
    for path in (tmp_path / "inputs").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="all 3 images of shard 0"):
        run(data)
    assert not data_files(data.spec.root) and not data.version(IMAGES).committed()


@pytest.mark.parametrize(("colour", "error"), [(IS_A_BUG, ZeroDivisionError), (FULL_DISK, OutOfSpace)])
def test_other_errors_end_the_turn_and_leave_nothing(
    make_dataset: MakeDataset, colour: tuple[int, int, int], error: type[Exception]
) -> None:
    data = make_dataset(40, 40, special={20: colour})
    threads = threading.active_count()
    with pytest.raises(error):
        run(data)
    assert not data_files(data.spec.root) and not data.version(MASKS).committed()
    assert not [path for path in Path(data.spec.root).rglob("*") if ".tmp" in path.name]
    assert threading.active_count() == threads


def test_damaged_committed_images_end_the_turn(make_dataset: MakeDataset) -> None:
    data = make_dataset(3, 3)
    run(replace(data, spec=replace(data.spec, fingerprints={IMAGES: "0" * 16, MASKS: "2" * 16})))
    tar = Path(data.spec.root, data.record(IMAGES, 0).data.name)
    content = bytearray(tar.read_bytes())
    content[3000] ^= 1
    tar.write_bytes(content)
    with pytest.raises(DamagedObject):
        run(data)
    assert not data.version(MASKS).committed()


class RacedStages:
    """Makes another attempt's commit of a column come first, just before ours."""

    def __init__(self, data: Dataset, monkeypatch: pytest.MonkeyPatch, column: str) -> None:
        self.data, self.column = data, column
        self.winner = "w" * 16
        commit = type(data.version(column)).commit

        def raced(version: object, record: CommitRecord) -> CommitRecord:
            if record.column == column and record.attempt != self.winner:
                monkeypatch.undo()
                run(data, attempt=self.winner)
            return commit(version, record)  # type: ignore[arg-type]

        monkeypatch.setattr(type(data.version(column)), "commit", raced)


@pytest.mark.parametrize("column", [IMAGES, MASKS])
def test_a_lost_race_keeps_the_winners(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    data = make_dataset(4, 4)
    raced = RacedStages(data, monkeypatch, column)
    stages = build_fake_stages(data.spec, FakeMasks())
    report = run_shard(stages, ShardTask(shard=0, attempt="a" * 16))
    assert report.lost_race
    # a winner of images that went on to masks wins those too; one of masks alone found our images committed
    images_by = "a" * 16 if column == MASKS else raced.winner
    assert data.record(IMAGES, 0).attempt == images_by
    assert data.record(MASKS, 0).attempt == raced.winner
    assert data.record(MASKS, 0).inputs == {IMAGES: data.record(IMAGES, 0).sha256}
    tars = len(list(Path(data.spec.root).rglob("*.tar")))
    assert len(data_files(data.spec.root)) == tars + len(("images' index", "masks' index"))  # no leftovers
    assert list(data.contents(IMAGES)) == list(data.contents(MASKS))


def make_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_conforming_images_in_tars_stay_in_place(tmp_path: Path) -> None:
    from tests.workers.conftest import plan_dataset

    write_pictures(tmp_path / "pictures", 4)
    members = {path.name: path.read_bytes() for path in sorted((tmp_path / "pictures").iterdir())}
    png = io.BytesIO()
    Image.open(io.BytesIO(members["00001.jpg"])).save(png, "PNG")
    members["00009.png"] = png.getvalue()
    (tmp_path / "inputs").mkdir()
    make_tar(tmp_path / "inputs" / "in.tar", members)
    data = plan_dataset(tmp_path / "data", tmp_path / "inputs", 10)
    run(replace(data, spec=replace(data.spec, fingerprints={IMAGES: "0" * 16, MASKS: "2" * 16})))
    stored = data.contents(IMAGES)
    assert [sorted(files) for files in stored.values()] == [["json"]] * 4 + [["jpg", "json"]]
    read = list(read_images(data.version(IMAGES), data.record(IMAGES, 0)))
    assert [image.jpeg for image in read[:4]] == list(members.values())[:4]
    run(data)  # masks from the references
    assert len(data.contents(MASKS)) == 5
    other = replace(data, spec=replace(data.spec, fingerprints={IMAGES: "0" * 16, MASKS: "2" * 16}))
    assert data.contents(MASKS) == other.contents(MASKS)


def test_one_by_one_announces_each_image_before_its_turn(make_dataset: MakeDataset) -> None:
    data = make_dataset(4, 4, special={2: IS_A_BUG})
    with pytest.raises(ZeroDivisionError) as caught:
        run(data, one_by_one=True)
    assert caught.value.__notes__ == ["while making masks of image 000000003 in shard 0"]
    store = open_store(data.spec.root)
    named = last_announced(store, 0, "a" * 16)
    assert named is not None and (named.column, named.key) == (MASKS, "000000003")
    run(data, one_by_one=True, attempt="b" * 16, skip_keys={"000000003": MASKS, "000000001": IMAGES})
    assert data.rejects(MASKS) == {"000000003": CRASHED}
    assert len(data.contents(IMAGES)) == 4  # they were committed before: too late to leave one out
    assert last_announced(store, 0, "b" * 16) is None


def test_a_key_that_kills_while_it_is_read_is_left_out_of_images(make_dataset: MakeDataset) -> None:
    data = make_dataset(3, 3)
    run(data, one_by_one=True, skip_keys={"000000002": IMAGES})
    assert data.rejects(IMAGES) == {"000000002": CRASHED}
    assert list(data.contents(MASKS)) == ["000000001", "000000003"]


def test_progress_counts_while_a_shard_is_in_work(make_dataset: MakeDataset) -> None:
    data = make_dataset(8, 8)
    meter, seen = Meter(), []

    class Watching(FakeMasks):
        def __call__(self, images):  # type: ignore[no-untyped-def]
            seen.append(meter.progress())
            return super().__call__(images)

    run_shard(build_fake_stages(data.spec, Watching()), ShardTask(shard=0, attempt="a" * 16), meter)
    assert [progress.images_done for progress in seen] == list(range(8))
    assert {progress.key for progress in seen} == {f"{i:09d}" for i in range(1, 9)}
    assert seen[-1].shard == 0 and seen[-1].masks_done > 0


def test_a_writers_error_comes_out_of_add(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(1, 1)

    def full(*_: object) -> None:
        raise OutOfSpace("the disk is full")

    monkeypatch.setattr("maskmill.workers.shard.column_writer.write_shard", full)
    task = ShardTask(shard=0, attempt="a" * 16)
    with (
        pytest.raises(OutOfSpace),
        ColumnWriter(data.version(MASKS), task, Meter(), depth=2, index=()) as writer,
    ):
        for _ in range(50):
            writer.add(lambda: pytest.fail("nobody writes") or EncodedSample(None))  # type: ignore[arg-type]


def test_memory_is_bounded_by_queues(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow model is never more than a few images behind the readers."""
    data = make_dataset(60, 60, decode_threads=2)
    ahead = []

    class Slow(FakeMasks):
        done = 0

        def __call__(self, images):  # type: ignore[no-untyped-def]
            self.done += 1
            ahead.append(len(read) - self.done)
            return super().__call__(images)

    read: list[str] = []
    stages = build_fake_stages(data.spec, Slow(seconds=0.002))

    def counting(image: PlannedImage, max_bytes: int) -> bytes:
        read.append(image.key)
        return read_source(image, max_bytes)

    monkeypatch.setattr("maskmill.workers.shard.taken_in.read_source", counting)
    run_shard(stages, ShardTask(shard=0, attempt="a" * 16))
    assert len(read) == 60 and max(ahead) <= 2 * 3 + 1


def test_a_repair_makes_a_committed_column_again_and_once(make_dataset: MakeDataset) -> None:
    data = make_dataset(5, 3)
    for shard in range(2):
        run(data, shard=shard)
    before, first = data_files(data.spec.root), data.record(MASKS, 1)
    Path(data.spec.root, first.data.name).write_bytes(b"damaged")
    repairing = replace(data, spec=replace(data.spec, repairs={1: {MASKS: 1}}))
    stages = run(repairing, shard=1, attempt="b" * 16)
    repaired = data.record(MASKS, 1)
    assert (repaired.repair, repaired.attempt, repaired.inputs) == (1, "b" * 16, first.inputs)
    assert (repaired.data.sha256, data.record(IMAGES, 1).repair) == (first.data.sha256, 0)
    assert data_files(data.spec.root) == before, "the newest attempt sorts last and is as the first was"
    assert run_shard(stages, ShardTask(shard=1, attempt="c" * 16)).already_done
    assert run_shard(stages, ShardTask(shard=0, attempt="c" * 16)).already_done
