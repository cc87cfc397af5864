"""The `images` column: pictures copied in, or left where they are and referred to.

A sample is <key>.json, which says where the picture came from and its size as stored, and <key>.jpg. One
that conforms may stay inside its input tar: then the json says `"reference": true`, there is no jpg, and the
reader fetches the bytes from the source, neighbours as one stream, their sha256 checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.errors import DamagedObject, StorageError
from maskmill.storage.json_text import from_json, load_object
from maskmill.storage.plan.sources import PlannedImage, read_sources, source_label
from maskmill.storage.shards.shards import Sample, WrittenObject, check_object, read_shard
from maskmill.storage.stores.base import ObjectStore

MAX_REFERENCES = 64  # resolved at once: their samples wait, not their bytes

_PLANNED = ("image_id", "source", "member", "offset", "size_bytes", "etag", "sha256", "caption")


@dataclass(frozen=True)
class StoredImage:
    """A picture of the dataset.

    Attributes:
        key, image_id: as planned.
        jpeg: the encoded picture.
        width, height: in pixels, of the picture as it is to be seen.
        caption: the text that came with it, or None.
        source: where it came from, tar::member inside a tar.
        converted: what ingest did to it, "" for nothing.
        by_reference: whether `jpeg` was read from the source.
    """

    key: str
    image_id: int
    jpeg: bytes
    width: int
    height: int
    caption: str | None
    source: str
    converted: str
    by_reference: bool


def to_sample(
    image: PlannedImage, *, jpeg: bytes | None, width: int, height: int, converted: str = ""
) -> Sample:
    """A sample of the `images` column.

    Args:
        image: as planned.
        jpeg: the encoded picture, or None to leave it at its source, which then must be a JPEG.
        width, height: in pixels, as it is to be seen.
        converted: what was done to it.
    """
    info: dict[str, object] = {name: getattr(image, name) for name in _PLANNED}
    info |= {"width": width, "height": height, "converted": converted, "reference": jpeg is None}
    files = {"json": json.dumps(info, sort_keys=True, ensure_ascii=False).encode()}
    return Sample(image.key, files if jpeg is None else {**files, "jpg": jpeg})


def read_images(version: ColumnVersion, record: CommitRecord) -> Iterator[StoredImage]:
    """The pictures of a committed shard, in order. Raises as resolved_samples."""
    for sample in resolved_samples(version.store, record.data, record.shard):
        yield stored_image(sample)


def stored_image(sample: Sample) -> StoredImage:
    """A resolved sample of the `images` column, typed. Raises DamagedObject."""
    info = _info(sample)
    if "jpg" not in sample.files:
        raise DamagedObject(f"image {sample.key}: has no jpg")
    return StoredImage(
        key=sample.key,
        image_id=info.image_id,
        jpeg=sample.files["jpg"],
        width=info.width,
        height=info.height,
        caption=info.caption,
        source=source_label(info.source, info.member),
        converted=info.converted,
        by_reference=info.reference,
    )


def resolved_samples(store: ObjectStore, data: WrittenObject, shard: int) -> Iterator[Sample]:
    """The samples of an `images` shard, each with its jpg, wherever that is kept.

    Raises:
        DamagedObject: as shards.read_shard, at the latest when the iterator ends.
        SourceChanged, ObjectNotFound, AccessDenied, StoreUnavailable: the source isn't as planned.
    """
    try:
        yield from _resolved(store, data, shard)
    except StorageError:
        check_object(store, data)  # a damaged tar may name a wrong source: then the tar is to blame
        raise


def resolved_sample(sample: Sample, shard: int) -> Sample:
    """One sample of an `images` shard with its jpg, fetched from the source where it was left there.

    Raises:
        DamagedObject: its json cannot be read.
        SourceChanged, ObjectNotFound, AccessDenied, StoreUnavailable: the source isn't as planned.
    """
    if not _info(sample).reference:
        return sample
    return next(_resolve([sample], shard))


def _resolved(store: ObjectStore, data: WrittenObject, shard: int) -> Iterator[Sample]:
    waiting: list[Sample] = []
    for sample in read_shard(store, data):
        refers = _info(sample).reference
        if refers:
            waiting.append(sample)
        if not refers or len(waiting) == MAX_REFERENCES:
            yield from _resolve(waiting, shard)
            waiting = []
        if not refers:
            yield sample
    yield from _resolve(waiting, shard)


def _resolve(waiting: list[Sample], shard: int) -> Iterator[Sample]:
    images = []
    for sample in waiting:
        info = _info(sample)
        planned = {name: getattr(info, name) for name in _PLANNED}
        images.append(PlannedImage(key=sample.key, shard=shard, **planned))
    for sample, found in zip(waiting, read_sources(images), strict=True):
        if found.data is None:
            assert found.error is not None
            raise found.error
        yield Sample(sample.key, {**sample.files, "jpg": found.data})


@dataclass(frozen=True)
class _Info:
    """An image's json, as to_sample writes it."""

    image_id: int
    source: str
    member: str
    offset: int
    size_bytes: int
    etag: str
    sha256: str
    caption: str | None
    width: int
    height: int
    converted: str
    reference: bool

    def __post_init__(self) -> None:
        assert self.offset >= 0 and self.size_bytes >= 0, "bytes lie somewhere"


def _info(sample: Sample) -> _Info:
    try:
        found = load_object(sample.files["json"])
        return from_json(_Info, {name: found[name] for name in _Info.__dataclass_fields__ if name in found})
    except (ValueError, KeyError) as exc:
        raise DamagedObject(f"image {sample.key}: has no readable json ({exc})") from exc
