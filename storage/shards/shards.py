"""Samples in and out of tars.

Written as webdataset's TarWriter would, with a fixed mtime and sorted endings: equal samples make equal
bytes. Read as one stream while size, sha256 and the number of samples are checked against what was written,
because a tar cut between two members, or with a flipped header byte, reads without an error elsewhere.

A damaged shard is known at the latest when its stream ends: whoever derives something from it publishes
only after the last sample.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.tar_format import Member, end_marker, member_header, padding, read_members
from maskmill.storage.shards.tars import BLOCK_BYTES
from maskmill.storage.stores.base import ObjectStore

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Sample:
    """What a tar holds under one key.

    Attributes:
        key: non-empty, without '.', '/' or a leading '_' (webdataset gives those a meaning).
        files: bytes by ending without the leading dot, e.g. "jpg", "json".
    """

    key: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """A data object as its record names it.

    Attributes:
        name: within the dataset's store.
        size_bytes: length.
        sha256: of all bytes, hexadecimal.
        num_samples: samples of a tar, rows of a Parquet file.
    """

    name: str
    size_bytes: int
    sha256: str
    num_samples: int


def write_shard(store: ObjectStore, name: str, samples: Iterable[Sample]) -> WrittenObject:
    """Writes samples, in the order given, as one tar; nothing is left behind when `samples` raises.

    Raises:
        ValueError: a key twice, a key or ending that webdataset would read otherwise, or no files.
    """
    seen: set[str] = set()
    with store.open_write(name) as target:
        hashing = HashingWriter(target)
        for sample in samples:
            _check_sample(sample, seen)
            for ending in sorted(sample.files):
                content = sample.files[ending]
                hashing.write(member_header(f"{sample.key}.{ending}", len(content)))
                hashing.write(content)
                if len(content) % BLOCK_BYTES:
                    hashing.write(padding(len(content)))
        hashing.write(end_marker(hashing.num_bytes))
    return WrittenObject(name, hashing.num_bytes, hashing.hexdigest(), len(seen))


def read_shard(store: ObjectStore, written: WrittenObject) -> Iterator[Sample]:
    """The samples of a tar, in order, checked against its record.

    Raises:
        DamagedObject: size, sha256, number of samples or structure differ. The size is checked first, the
            checksum at the end of the stream: don't publish what was derived before the iterator ends.
        ObjectNotFound: the object is gone.
    """
    check_size(store, written)
    num_samples = 0
    with store.open_read(written.name) as source:
        hashing = HashingReader(source)
        try:
            for sample in _samples(read_members(hashing.read, written.size_bytes)):
                num_samples += 1
                yield sample
        except DamagedObject as exc:
            raise DamagedObject(f"{store.root}/{written.name}: not a readable tar: {exc}") from exc
        hashing.drain()
    _check(store, written, hashing.num_bytes, hashing.hexdigest(), num_samples)


def check_object(store: ObjectStore, written: WrittenObject) -> None:
    """Reads a data object once and compares size and sha256. Raises DamagedObject, ObjectNotFound."""
    check_size(store, written)
    with store.open_read(written.name) as source:
        hashing = HashingReader(source)
        hashing.drain()
    _check(store, written, hashing.num_bytes, hashing.hexdigest(), written.num_samples)


def read_object(store: ObjectStore, written: WrittenObject) -> bytes:
    """All bytes of a data object that fits into memory, checked. Raises DamagedObject, ObjectNotFound."""
    data = store.read(written.name)
    _check(store, written, len(data), hashlib.sha256(data).hexdigest(), written.num_samples)
    return data


def write_object(store: ObjectStore, name: str, data: bytes, num_samples: int) -> WrittenObject:
    """Writes bytes under an attempt's own name and says what a record needs to know of them."""
    with store.open_write(name) as target:
        target.write(data)
    return WrittenObject(name, len(data), hashlib.sha256(data).hexdigest(), num_samples)


def check_size(store: ObjectStore, written: WrittenObject) -> None:
    """Presence and size, without reading. Raises DamagedObject, ObjectNotFound."""
    size_bytes = store.stat(written.name).size_bytes
    if size_bytes != written.size_bytes:
        raise DamagedObject(
            f"{store.root}/{written.name}: {size_bytes} bytes, but its record says {written.size_bytes}"
        )


class HashingWriter(io.RawIOBase):
    """Passes bytes on and knows their sha256. Closing it leaves the target open."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._sha256 = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self.num_bytes

    def write(self, data: ReadableBuffer) -> int:
        """See io.RawIOBase."""
        view = memoryview(data)
        self._target.write(view)
        self._sha256.update(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def hexdigest(self) -> str:
        """Of the bytes so far."""
        return self._sha256.hexdigest()


class HashingReader(io.RawIOBase):
    """Passes bytes on and knows their sha256. Closing it leaves the source open."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self.num_bytes = 0

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def read(self, size: int = -1) -> bytes:
        """See io.RawIOBase."""
        data = self._source.read(size)
        self._sha256.update(data)
        self.num_bytes += len(data)
        return data

    def drain(self) -> None:
        """Reads to the end."""
        while self.read(CHUNK_BYTES):
            pass

    def hexdigest(self) -> str:
        """Of the bytes so far."""
        return self._sha256.hexdigest()


def _check_sample(sample: Sample, seen: set[str]) -> None:
    key = sample.key
    if not key or key[0] == "_" or any(mark in key for mark in "./\0"):
        raise ValueError(
            f"{key!r} cannot be a sample's key: it must be non-empty, without '.', '/' or a leading '_'"
        )
    if key in seen:
        raise ValueError(f"key {key!r} twice in one shard; a shard holds each key once")
    if not sample.files:
        raise ValueError(f"sample {key!r} has no files; a reject belongs into the record")
    for ending in sample.files:
        if not ending or ending[0] in "._" or ending != ending.lower() or "/" in ending or "\0" in ending:
            raise ValueError(
                f"{ending!r} cannot be a file's ending: lower case, without '/' or a leading '.' or '_'"
            )
    seen.add(key)


def _samples(members: Iterator[Member]) -> Iterator[Sample]:
    key, files = "", dict[str, bytes]()
    for member in members:
        member_key, _, ending = member.name.partition(".")
        if files and member_key != key:
            yield Sample(key, files)
            files = {}
        key = member_key
        files[ending] = member.content
    if files:
        yield Sample(key, files)


def _check(store: ObjectStore, written: WrittenObject, num_bytes: int, sha256: str, num_samples: int) -> None:
    found = WrittenObject(written.name, num_bytes, sha256, num_samples)
    if found != written:
        raise DamagedObject(
            f"{store.root}/{written.name}: {num_bytes} bytes, {num_samples} samples, {sha256[:12]}...; "
            f"its record says {written.size_bytes}, {written.num_samples}, {written.sha256[:12]}..."
        )
