"""Copies among a dataset's pictures are found by the index, or, where a shard has none, by the pictures."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from maskmill.pipeline.phash import picture_hash
from maskmill.storage.care.forget import forget
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.query.query import run_query
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.reading.near_duplicates import (
    KnownPicture,
    Overlap,
    find_duplicates,
    known_pictures,
    overlaps,
)
from maskmill.workers.shard import turn
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """As a dataset was before pictures had an index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn.images, "INDEX", ())
        return publish_dataset(tmp_path_factory.mktemp("old"))


def test_every_picture_has_a_row_with_what_tells_it_from_others(data: Published) -> None:
    known = known_pictures(data.store, data.generation, decode=False)
    assert len(known) == NUM_ANNOTATED
    by_sha256 = {one.sha256: one for one in known}
    for name in ("0.jpg", "picture.png"):
        source = (data.inputs / name).read_bytes()
        found = by_sha256[hashlib.sha256(source).hexdigest()]
        with Image.open(io.BytesIO(source)) as picture:
            assert found.phash is not None
            assert picture_hash(np.asarray(picture.convert("RGB"))) == found.phash
    black = by_sha256[hashlib.sha256((data.inputs / "black.jpg").read_bytes()).hexdigest()]
    assert black.phash is None


def test_shards_without_an_index_are_read(data: Published, old: Published) -> None:
    now = known_pictures(data.store, data.generation, decode=False)
    told: list[tuple[int, int]] = []
    read = known_pictures(old.store, old.generation, decode=True, progress=lambda *done: told.append(done))
    assert sorted(read, key=lambda one: one.key) == sorted(now, key=lambda one: one.key)
    assert told[-1][0] == told[-1][1] == len(told)
    unread = known_pictures(old.store, old.generation, decode=False)
    assert {one.sha256 for one in unread} == {one.sha256 for one in now}
    assert all(one.phash is None for one in unread)


def test_queries_have_the_hashes_where_there_are_any(data: Published, old: Published) -> None:
    sql = "select count(*), count(phash), count(width) from images"
    assert asked(data.store, data.generation, sql) == (NUM_ANNOTATED + 1, NUM_ANNOTATED - 1, NUM_ANNOTATED)
    assert asked(old.store, old.generation, sql) == (NUM_ANNOTATED + 1, 0, 0)


def asked(store: ObjectStore, generation: Generation, sql: str) -> tuple[object, ...]:
    return run_query(store, generation, sql).rows[0]


def test_a_forgotten_picture_leaves_no_hash(tmp_path: Path) -> None:
    data = publish_dataset(tmp_path / "published")
    gone, *kept = known_pictures(data.store, data.generation, decode=False)
    forget(data.store, [gone.key], created_utc="2026-01-01T00:00:00+00:00")
    left = known_pictures(data.store, find_generation(data.store), decode=False)
    assert left == kept


def known(key: str, name: str, *, size: tuple[int, int] | None = None) -> KnownPicture:
    picture = Image.fromarray(getattr(photographs, name)()).convert("RGB")
    pixels = np.asarray(picture.resize(size) if size else picture)
    return KnownPicture(key, hashlib.sha256(pixels.tobytes()).hexdigest(), picture_hash(pixels))


def test_copies_are_grouped_by_key() -> None:
    pictures = [
        known("3", "chelsea"),
        known("1", "coffee", size=(200, 133)),
        KnownPicture("5", "f" * 64, None),
        known("0", "coffee"),
        known("2", "astronaut"),
    ]
    found = find_duplicates(pictures)
    assert found.groups == (("0", "1"),)
    assert (found.num_images, found.num_flat, found.num_copies) == (5, 1, 1)


def test_foreign_pictures_are_told_by_bytes_or_looks() -> None:
    mine = [known("0", "coffee"), known("1", "chelsea"), KnownPicture("2", "f" * 64, None)]
    near, equal, other = (
        known("", "coffee", size=(120, 80)),
        known("", "chelsea"),
        known("", "astronaut"),
    )
    foreign = {
        "near.jpg": (near.sha256, near.phash),
        "equal.jpg": (equal.sha256, equal.phash),
        "other.jpg": (other.sha256, other.phash),
        "flat.jpg": ("f" * 64, None),
    }
    found = {one.name: one for one in overlaps(mine, foreign)}
    assert set(found) == {"near.jpg", "equal.jpg", "flat.jpg"}
    assert found["equal.jpg"] == Overlap("equal.jpg", "1", None)
    assert found["flat.jpg"].key == "2" and found["near.jpg"].key == "0"
    assert 0 < (found["near.jpg"].distance or 0) < 48
