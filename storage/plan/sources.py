"""Planned images and their bytes at the source, checked against the plan.

Images inside input tars are read in place: by offset and size, and a run of neighbours as one stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskmill.storage.errors import SourceChanged, SourceTooLarge, StorageError
from maskmill.storage.plan.patience import open_patiently, within
from maskmill.storage.stores.open import address_store

GAP_BYTES = 1 << 20  # neighbours in a tar at most this far apart are read as one stream


@dataclass(frozen=True)
class PlannedImage:
    """An image the dataset is made of.

    Attributes:
        key: nine digits, unique over the dataset.
        image_id: the same as a number, from 1.
        shard: number of the shard it belongs to.
        source: absolute path or address of the file that holds the bytes.
        member: its name inside a tar, "" for a file of its own.
        offset: of its first byte in `source`.
        size_bytes: length.
        etag: of `source`, when it was planned.
        sha256: of the bytes, hexadecimal.
        caption: the text beside it, None if there was none.
    """

    key: str
    image_id: int
    shard: int
    source: str
    member: str
    offset: int
    size_bytes: int
    etag: str
    sha256: str
    caption: str | None

    @property
    def in_tar(self) -> bool:
        """Whether the bytes lie inside a tar."""
        return bool(self.member)

    @property
    def label(self) -> str:
        """For people and records: the source, or tar::member."""
        return source_label(self.source, self.member)


@dataclass(frozen=True)
class SourceRead:
    """A planned image's bytes, or why there are none: exactly one of the two."""

    image: PlannedImage
    data: bytes | None
    error: StorageError | None


def source_label(source: str, member: str) -> str:
    """`tar::member`, or the source itself."""
    return f"{source}::{member}" if member else source


def read_source(image: PlannedImage, max_bytes: int | None = None) -> bytes:
    """An image's bytes, as planned.

    Args:
        image: whose bytes.
        max_bytes: more are not read at all.

    Raises:
        SourceTooLarge: it has more.
        SourceSilent, NotAFile: it gives no bytes in time, or is a file no more.
        SourceChanged: other bytes are there now.
        ObjectNotFound, AccessDenied, StoreUnavailable: the source cannot be read.
    """
    _check_size(image, max_bytes)
    store, name = address_store(image.source)
    size_bytes = image.size_bytes + (0 if image.in_tar else 1)  # one more would show that a file has grown
    return _checked(image, within(image.source, lambda: store.read(name, image.offset, size_bytes)))


def _check_size(image: PlannedImage, max_bytes: int | None) -> None:
    if max_bytes is not None and image.size_bytes > max_bytes:
        raise SourceTooLarge(
            f"{image.label}: {image.size_bytes} bytes, more than the {max_bytes} that any picture of the "
            "allowed pixels can need; it was not read"
        )


def read_sources(images: Sequence[PlannedImage], max_bytes: int | None = None) -> Iterator[SourceRead]:
    """The bytes of each image, or its error, in order; neighbours in a tar come from one stream.

    Args:
        images: in the order of their tars.
        max_bytes: of an image with more nothing is read.
    """
    start = 0
    while start < len(images):
        stop = start + 1
        while stop < len(images) and _adjoin(images[stop - 1], images[stop], max_bytes):
            stop += 1
        yield from _read_span(images[start:stop], max_bytes)
        start = stop


def _adjoin(first: PlannedImage, second: PlannedImage, max_bytes: int | None) -> bool:
    if max_bytes is not None and max(first.size_bytes, second.size_bytes) > max_bytes:
        return False
    gap = second.offset - (first.offset + first.size_bytes)
    return first.in_tar and second.in_tar and first.source == second.source and 0 <= gap <= GAP_BYTES


def _read_span(span: Sequence[PlannedImage], max_bytes: int | None) -> Iterator[SourceRead]:
    num_done = 0
    if len(span) > 1:
        start, end = span[0].offset, span[-1].offset + span[-1].size_bytes
        try:
            with open_patiently(span[0].source, start, end - start) as stream:
                at = start
                for image in span:
                    stream.read(image.offset - at)
                    data = stream.read(image.size_bytes)
                    at = image.offset + image.size_bytes
                    yield _outcome(image, data)
                    num_done += 1
        except StorageError:
            pass  # the rest one by one, each with its own error
    for image in span[num_done:]:
        try:
            yield SourceRead(image, read_source(image, max_bytes), None)
        except StorageError as exc:
            yield SourceRead(image, None, exc)


def _outcome(image: PlannedImage, data: bytes) -> SourceRead:
    try:
        return SourceRead(image, _checked(image, data), None)
    except SourceChanged as exc:
        return SourceRead(image, None, exc)


def _checked(image: PlannedImage, data: bytes) -> bytes:
    if len(data) != image.size_bytes or hashlib.sha256(data).hexdigest() != image.sha256:
        raise SourceChanged(
            f"{image.label}: is not what was planned ({image.size_bytes} bytes, {image.sha256[:12]}...); "
            "put the planned file back, or start a new dataset for the new one"
        )
    return data
