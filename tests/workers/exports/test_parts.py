"""Files of limited size: when one is closed, what an earlier run finished, and what a limit below one image
does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import pytest

from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.parts import Ahead, drop_notes, finished_parts, note_part
from maskmill.workers.exports.report import ExportedFile
from maskmill.workers.exports.samples import ExportImage


def images(sizes: list[int]) -> Iterator[ExportImage]:
    return iter(cast(Any, sizes))


def split(sizes: list[int], *, max_images: int, max_bytes: int, head: int = 0) -> list[list[int]]:
    ahead = Ahead(images(sizes), 0, None)
    parts = []
    while ahead.next is not None:
        part = ahead.part(
            lambda image: cast(int, image), max_images=max_images, max_bytes=max_bytes, head_bytes=head
        )
        parts.append([cast(int, image) for image in part])
    return parts


def test_a_file_is_closed_before_it_is_too_large() -> None:
    assert split([1, 1, 1], max_images=2, max_bytes=100) == [[1, 1], [1]]
    assert split([40, 40, 40], max_images=9, max_bytes=80) == [[40, 40], [40]]
    assert split([40, 40, 40], max_images=9, max_bytes=80, head=1) == [[40], [40], [40]]
    assert split([500, 1, 500], max_images=9, max_bytes=80) == [[500], [1], [500]]
    assert split([], max_images=9, max_bytes=80) == []


def test_images_taken_before_count_in_the_progress() -> None:
    told: list[int] = []
    ahead = Ahead(images([1, 1]), 5, told.append)
    ahead.take()
    ahead.take()
    assert told == [6, 7] and ahead.next is None


@pytest.fixture
def target(tmp_path: Any) -> ObjectStore:
    return open_store(tmp_path)


def file(number: int) -> ExportedFile:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    return ExportedFile(name=f"data/{number}.tar", size_bytes=3, sha256=sha256, num_images=1, num_masks=2)


@pytest.mark.parametrize("damaged", [b"c", b"abd"], ids=["cut", "flipped"])
def test_a_run_goes_on_after_the_last_file_that_is_whole(target: ObjectStore, damaged: bytes) -> None:
    for number in range(3):
        target.put(f"data/{number}.tar", b"abc")
        note_part(target, file(number))
    target.put("data/2.tar", damaged)
    found = finished_parts(target, lambda number: f"data/{number}.tar")
    assert found == [file(0), file(1)]
    drop_notes(target, found)
    assert finished_parts(target, lambda number: f"data/{number}.tar") == []
    assert target.read("data/0.tar") == b"abc"
