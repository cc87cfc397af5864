"""Copies of a picture have its hash but for a few bits, others differ in half; banding finds what brute force
does."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance
from skimage import data

from maskmill.pipeline.phash import BITS, MAX_DISTANCE, distances, groups, near_pairs, picture_hash, to_words
from maskmill.pipeline.scenes.scenes import generate_scene

PHOTOS = ("chelsea", "coffee", "astronaut", "coins", "rocket", "camera")


def photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB")


@cache
def pictures() -> list[Image.Image]:
    scenes = [generate_scene(seed) for seed in range(6)]
    return [photograph(name) for name in PHOTOS] + [Image.fromarray(scene.image) for scene in scenes]


def recompressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def resized(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.resize((round(picture.width * factor), round(picture.height * factor)))


def brightened(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def hashed(picture: Image.Image) -> npt.NDArray[np.uint64]:
    found = picture_hash(np.asarray(picture))
    assert found is not None
    return to_words([found])


@pytest.mark.parametrize(
    "change",
    [recompressed, resized(0.5), resized(2.0), brightened(0.8), brightened(1.2)],
    ids=["recompressed", "half", "double", "darker", "brighter"],
)
def test_a_copy_is_near(change: Callable[[Image.Image], Image.Image]) -> None:
    for picture in pictures():
        assert distances(hashed(picture), hashed(change(picture)))[0] <= MAX_DISTANCE


def test_other_pictures_are_far() -> None:
    words = np.concatenate([hashed(picture) for picture in pictures()])
    apart = distances(words[:, None], words[None])
    assert apart[~np.eye(len(words), dtype=bool)].min() > 1.5 * MAX_DISTANCE


def test_lowest_frequencies_come_first_and_the_mean_not_at_all() -> None:
    across = np.tile(np.cos(np.pi * (np.arange(64) + 0.5) / 64), (64, 1))  # the first frequency along x
    bright, dark = (np.uint8(level + 40 * across) for level in (200, 60))
    found = picture_hash(np.asarray(bright)), picture_hash(np.asarray(dark))
    assert all(one is not None and int(one[0], 16) & 0b1000 for one in found)
    upside = picture_hash(np.asarray(bright).T.copy())
    assert upside is not None and bin(int(upside[0], 16))[2:].zfill(4)[1] == "1"


def test_a_flat_picture_has_no_hash() -> None:
    assert picture_hash(np.full((40, 60, 3), 127, np.uint8)) is None
    assert picture_hash(np.zeros((1, 1, 3), np.uint8)) is None


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        to_words(["abcd"])


def flipped(words: npt.NDArray[np.uint64], bits: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    changed = words.copy()
    for bit in bits:
        changed[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def test_banding_finds_what_comparing_all_does() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 64, (300, 4), dtype=np.uint64)
    for i in range(100):  # copies of copies, all within what a shared word promises
        words[200 + i] = flipped(words[rng.integers(200 + i)], rng.choice(BITS, rng.integers(1, 16), False))

    found = {(int(a), int(b)) for a, b in near_pairs(words, 15)}
    apart = distances(words[:, None], words[None])
    expected = {(i, j) for i in range(300) for j in range(i + 1, 300) if apart[i, j] <= 15}
    assert found == expected and len(found) >= 90


def test_a_thousand_equal_frames_are_one_group_of_few_pairs() -> None:
    words = np.tile(np.arange(4, dtype=np.uint64), (1000, 1))
    pairs = near_pairs(words)
    assert len(pairs) == 999
    assert [len(group) for group in groups(1000, pairs)] == [1000]


def test_groups_hang_together_by_pairs() -> None:
    pairs = np.array([[4, 6], [0, 2], [2, 5]])
    assert [group.tolist() for group in groups(8, pairs)] == [[0, 2, 5], [4, 6]]
    assert groups(3, np.zeros((0, 2), np.int64)) == []
