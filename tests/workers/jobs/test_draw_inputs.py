"""Images drawn from inputs before any plan."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from maskmill.storage.errors import InputError
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.draw_inputs import IMAGES_PER_TAR, sample_inputs
from maskmill.workers.run.ingest_settings import IngestSettings
from tests.fakes import jpeg_bytes
from tests.workers.published import shapes


def write_images(folder: Path, num: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        (folder / f"{i:03d}.jpg").write_bytes(jpeg_bytes(shapes(i)))


def write_tar(path: Path, num: int, *, cut: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in range(num):
            for name, data in ((f"{i}.jpg", jpeg_bytes(shapes(i))), (f"{i}.txt", b"a caption")):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])


def test_every_file_is_drawn_as_often_as_any_other(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    drawn = Counter(
        image.source for seed in range(200) for image in sample_inputs([str(tmp_path)], 3, seed=seed).images
    )
    assert len(drawn) == 10 and sum(drawn.values()) == 600
    assert min(drawn.values()) > 30 and max(drawn.values()) < 95


def test_counts_bytes_and_what_is_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    (tmp_path / "notes.pdf").write_bytes(b"x")
    (tmp_path / "nothing.jpg").write_bytes(b"")
    sample = sample_inputs([str(tmp_path)], 10)
    assert sample.num_images == len(sample.images) + sample.problems.get("empty_file", 0) - len(
        [image for image in sample.images if not image.data]
    ) or sample.num_images == len(sample.images)
    assert sample.skipped == {".pdf": 1}
    assert sample.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.jpg"))
    assert sample.tars_estimated == 0


def test_images_in_tars_are_counted_by_rate_and_drawn(tmp_path: Path) -> None:
    for number in range(5):
        write_tar(tmp_path / f"{number}.tar", 20)
    sample = sample_inputs([str(tmp_path)], 6)
    assert sample.tars_estimated == 5 and 95 <= sample.num_images <= 105
    assert len(sample.images) == 6
    assert all("::" in image.source and image.data.startswith(b"\xff\xd8") for image in sample.images)


def test_files_and_tars_are_drawn_in_proportion(tmp_path: Path) -> None:
    write_images(tmp_path / "files", 30)
    write_tar(tmp_path / "one.tar", 30)
    images = sample_inputs([str(tmp_path)], 10).images
    assert len(images) == 10
    assert sum("::" in image.source for image in images) == 5


def test_a_tar_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "cut.tar", 6, cut=10_240 + 700)
    assert 1 <= len(sample_inputs([str(tmp_path)], 6).images) <= 6


def test_an_input_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"x")
    with pytest.raises(InputError, match="no images"):
        sample_inputs([str(tmp_path)], 3)


MEMBERS = {
    "label maps beside": ["jpg", "seg.png", "txt"],
    "depth and mask": ["depth.png", "image.jpg", "mask.png"],
    "two cameras": ["left.png", "right.png", "json"],
    "numbered": ["img.0001.jpg", "img.0002.jpg"],
    "more than a sample holds": [f"crop{place}.png" for place in range(70)],
    "tables and unknown": ["npy", "jpeg", "cls"],
}


@pytest.mark.parametrize("fields", MEMBERS.values(), ids=list(MEMBERS))
def test_what_is_counted_in_a_tar_is_what_a_plan_takes(tmp_path: Path, fields: list[str]) -> None:
    path, picture = tmp_path / "samples.tar", jpeg_bytes(shapes(1))
    with tarfile.open(path, "w") as tar:
        for field in (f"{number:04d}.{field}" for number in range(20) for field in fields):
            data = (
                b"words" if field.endswith((".txt", ".json", ".cls", ".npy")) else picture
            ) + field.encode()
            header = tarfile.TarInfo(field)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    store = open_store(tmp_path / "ds")
    photograph = "mask.png" if "mask.png" in fields else None
    make_plan(store, [str(path)], shard_size=100, num_threads=1, photograph=photograph)
    planned = {label for _, label in load_plans(store).iter_sources()}
    asked = IngestSettings(photograph=photograph)
    sample = sample_inputs([str(path)], 5000, ingest=asked)
    assert {image.source for image in sample.images} <= planned
    assert sample.num_images == pytest.approx(len(planned), rel=0.06)
    assert len(sample.images) == min(len(planned), IMAGES_PER_TAR)


def test_of_a_file_no_more_is_read_than_a_picture_can_need(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(3 << 30)
    asked = IngestSettings(max_pixels=1000)
    assert max(len(image.data) for image in sample_inputs([str(tmp_path)], 5, ingest=asked).images) < 17 << 20
