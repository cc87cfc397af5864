"""Images drawn from inputs before any plan."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from maskmill.storage.errors import InputError
from maskmill.workers.jobs.draw_inputs import sample_inputs
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
