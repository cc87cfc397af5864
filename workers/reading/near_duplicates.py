"""Which pictures of a generation are the same again, and which of other pictures it has: equal bytes, or
perceptual hashes that are near (pipeline/phash.py).

Hashes come from the index of the `images` column. Shards that were taken in before it had one are read
instead: their sha256 from the samples, and the hash, where it is asked for, from the pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskmill.pipeline.phash import MAX_DISTANCE, distances, groups, near_pairs, picture_hash, to_words
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.images import resolved_samples, stored_image
from maskmill.storage.dataset.manifest import GenerationRow
from maskmill.storage.shards.index import read_index
from maskmill.storage.shards.shards import read_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.run.columns import IMAGES


@dataclass(frozen=True)
class KnownPicture:
    """A picture of a generation, by what tells it from others.

    Attributes:
        key: of the sample.
        sha256: of its source's bytes.
        phash: 64 hex digits; None for a flat picture, and where it isn't known.
    """

    key: str
    sha256: str
    phash: str | None


@dataclass(frozen=True)
class Duplicates:
    """The near-duplicates of a generation.

    Attributes:
        groups: keys that hang together, each group ascending, by its first.
        num_images: that were looked at.
        num_flat: pictures with nothing to tell them by, which are in no group.
    """

    groups: tuple[tuple[str, ...], ...]
    num_images: int
    num_flat: int

    @property
    def num_copies(self) -> int:
        """Images beyond the first of each group."""
        return sum(len(group) - 1 for group in self.groups)


def known_pictures(
    store: ObjectStore,
    generation: Generation,
    *,
    decode: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[KnownPicture]:
    """Every picture of a generation.

    Args:
        store: the dataset.
        generation: of it.
        decode: hash the pictures of shards without an index, some twenty a second; without, their hash is
            None.
        progress: called with the shards done and all of them.

    Raises:
        maskmill.storage.errors.DamagedObject: a shard is not what was written.
        DecodeError: a stored picture cannot be decoded.
    """
    rows = [row for row in generation.rows() if row.column == IMAGES]
    found: list[KnownPicture] = []
    for done, row in enumerate(rows, start=1):
        found += _of_shard(store, row, decode)
        if progress is not None:
            progress(done, len(rows))
    return found


def _of_shard(store: ObjectStore, row: GenerationRow, decode: bool) -> Iterator[KnownPicture]:
    if row.index is not None:
        table = read_index(store, row.index).select(["key", "sha256", "phash"])
        yield from (KnownPicture(**one) for one in table.to_pylist())
    elif decode:
        for sample in resolved_samples(store, row.data, row.shard):
            pixels = decode_image(stored_image(sample).jpeg)
            yield KnownPicture(sample.key, _sha256(sample.files["json"]), picture_hash(pixels))
    else:  # their json alone: no picture is fetched
        for sample in read_shard(store, row.data):
            yield KnownPicture(sample.key, _sha256(sample.files["json"]), None)


def _sha256(info: bytes) -> str:
    return str(json.loads(info)["sha256"])


def find_duplicates(pictures: Sequence[KnownPicture], max_distance: int = MAX_DISTANCE) -> Duplicates:
    """Groups of pictures that are the same again.

    Args:
        pictures: of a generation.
        max_distance: bits of 256 in which two hashes may differ.
    """
    hashed = [one for one in pictures if one.phash is not None]
    words = to_words([one.phash for one in hashed if one.phash is not None])
    found = groups(len(hashed), near_pairs(words, max_distance))
    keys = sorted(tuple(sorted(hashed[i].key for i in group)) for group in found)
    return Duplicates(tuple(keys), len(pictures), len(pictures) - len(hashed))


@dataclass(frozen=True)
class Overlap:
    """A foreign picture that a generation has.

    Attributes:
        name: of the foreign picture.
        key: of the generation's.
        distance: bits of 256 in which their hashes differ; None for equal bytes.
    """

    name: str
    key: str
    distance: int | None


def overlaps(
    known: Sequence[KnownPicture],
    foreign: Mapping[str, tuple[str, str | None]],
    max_distance: int = MAX_DISTANCE,
) -> list[Overlap]:
    """Foreign pictures that are among the known ones, each with the nearest.

    Args:
        known: of a generation.
        foreign: sha256 and hash by name.
        max_distance: bits of 256 in which two hashes may differ.
    """
    by_sha256 = {one.sha256: one.key for one in known}
    hashed = [one for one in known if one.phash is not None]
    words = to_words([one.phash for one in hashed if one.phash is not None])

    found = []
    for name, (sha256, phash) in foreign.items():
        if sha256 in by_sha256:
            found.append(Overlap(name, by_sha256[sha256], None))
        elif phash is not None and len(words):
            apart = distances(words, to_words([phash]))
            nearest = int(np.argmin(apart))
            if apart[nearest] <= max_distance:
                found.append(Overlap(name, hashed[nearest].key, int(apart[nearest])))
    return found
