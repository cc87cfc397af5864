"""Named bytes under a root: a local folder or an S3 prefix behind one interface.

A store is small, frozen and picklable: a worker gets it by value and opens its own files or connections.
Names are relative to the root and '/' separated. What is written appears whole or not at all, and is
durable when the call returns. `put_if_absent` is the one way to decide a race: of several writers of
different bytes exactly one gets True.

It does not know: what the bytes mean.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote_to_bytes

from maskmill.storage.errors import AccessDenied, InputError, ObjectNotFound, UnfitStore

TEMP_PREFIX = ".tmp-"  # unfinished local files; never listed, never a valid name


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing knows of an object.

    Attributes:
        name: relative to the store's root.
        size_bytes: length.
        etag: changes when the bytes change: S3's ETag, or modification time and size of a local file.
        modified_s: seconds since 1970, by the store's clock.
    """

    name: str
    size_bytes: int
    etag: str
    modified_s: float


@dataclass(frozen=True)
class Unfinished:
    """A write that has not ended: an S3 multipart upload, or a local temporary file.

    Attributes:
        name: of the object it would make (S3), or of the temporary file.
        upload_id: S3's, "" of a local file.
        size_bytes: held so far, as far as the store says.
        started_s: seconds since 1970 by the store's clock; of a local file when it was last written to.
    """

    name: str
    upload_id: str
    size_bytes: int
    started_s: float


class ObjectStore(Protocol):
    """Named bytes under `root`. Raises the errors of maskmill.storage.errors only."""

    def __hash__(self) -> int:
        """Stores of one root are one key of a cache."""

    @property
    def root(self) -> str:
        """Absolute local path or s3://bucket/prefix, with no trailing slash."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose names start with `prefix`, lazily, sorted by name; nothing if none."""

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The names between `prefix` (empty, or with a '/' at its end) and the next '/', sorted."""

    def stat(self, name: str) -> ObjectInfo:
        """Size and etag of one object. Raises ObjectNotFound."""

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `start` (to the end if None), fewer only at the end. Raises ObjectNotFound."""

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """The same as a stream, to be closed by the caller. Interrupted S3 reads are resumed."""

    def open_write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A stream whose bytes are published under `name` on a clean exit; an exception leaves nothing.

        The name must be one nobody else writes (attempt names are); an object there would be replaced.
        """

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Writes `data` if nothing is there. True: the object holds `data` now; False: other bytes.

        Exactly one of several writers of different bytes gets True. A retry of one's own write that had
        succeeded unseen gets True as well, so put something unique (an attempt) into what is raced for.
        """

    def put(self, name: str, data: bytes) -> None:
        """Writes or overwrites; only for what is no truth, such as heartbeats."""

    def delete(self, name: str) -> None:
        """Removes an object; no error if it isn't there."""

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """Writes under `prefix` that began and neither ended nor were given up, with what they hold."""

    def abandon(self, write: Unfinished) -> None:
        """Gives an unfinished write up; no error if it is gone. Its writer, if it lives, fails."""


def open_store(root: str | os.PathLike[str]) -> ObjectStore:
    """The store for a local folder (need not exist yet) or `s3://bucket/prefix`. Touches nothing.

    Raises:
        InputError: empty, another scheme, or no bucket.
    """
    from maskmill.storage.stores.local import LocalStore

    text = os.fspath(root)
    if is_s3(text):
        from maskmill.storage.stores.s3 import S3Store

        return S3Store(text.rstrip("/"))
    if "://" in text and not text.startswith("file://"):
        raise InputError(f"{text}: unknown kind of address; use a local path or s3://bucket/prefix")
    if not text:
        raise InputError("an empty path is no place for a dataset; use a local path or s3://bucket/prefix")
    path = Path(local_address(text)).expanduser()
    return LocalStore(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def address_store(address: str) -> tuple[ObjectStore, str]:
    """The store and name of one absolute address: `/a/b.jpg` or `s3://bucket/a/b.jpg`.

    Raises:
        InputError: not absolute, another scheme, or no object name in it.
    """
    if is_s3(address):
        from maskmill.storage.stores.s3 import S3Store

        bucket, _, name = address.removeprefix("s3://").partition("/")
        if not bucket or not name:
            raise InputError(f"{address}: names no object; use s3://bucket/name")
        return S3Store(f"s3://{bucket}"), name
    path = local_address(address)
    folder, _, name = path.rpartition("/")
    if not name or not path.startswith("/"):
        raise InputError(f"{address}: not an absolute path or s3:// address of one file")
    from maskmill.storage.stores.local import LocalStore

    return LocalStore(folder or "/"), name


def is_s3(address: str) -> bool:
    """Whether an address is S3's."""
    return address.startswith("s3://")


def local_address(address: str) -> str:
    """The path of a local address: itself, or what a file:// address percent-encodes."""
    if not address.startswith("file://"):
        return address
    return os.fsdecode(unquote_to_bytes(address.removeprefix("file://")))


def join_address(root: str, name: str) -> str:
    """The absolute address of `name` under `root`."""
    return f"{root.rstrip('/')}/{name}"


def check_name(name: str) -> str:
    """`name` itself, if it may be written under a root.

    Raises:
        InputError: empty, absolute, with empty, `.` or `..` parts, or a temporary's name.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or part.startswith(TEMP_PREFIX) or "\0" in part for part in parts):
        raise InputError(
            f"{name!r} cannot name an object: parts must not be empty, '.', '..' or {TEMP_PREFIX}*"
        )
    return name


PROMISE = "locks/put-if-absent.json"
"""Says that the store was seen to keep the promise; written once a dataset."""


def ensure_writable(store: ObjectStore) -> None:
    """Proves, by writing and removing small objects, that a dataset can be kept here, before work starts.

    Once a dataset the store has to show that it keeps put-if-absent: of two writers of one name the second
    one loses. Everything rests on it: plans, commits, generations.

    Raises:
        AccessDenied, BucketNotFound, OutOfSpace, StoreUnavailable: with the place and the cure.
        UnfitStore: the second writer won too.
    """
    name = f"drivers/probe-{uuid.uuid4().hex}"
    if not store.put_if_absent(name, name.encode()):
        raise AccessDenied(
            f"{store.root}: a fresh object came back with other bytes; this store cannot be trusted"
        )
    try:
        if not _is_there(store, PROMISE):
            _prove_promise(store, name)
    finally:
        store.delete(name)


def _prove_promise(store: ObjectStore, taken: str) -> None:
    """A second writer of a name that is taken must lose, and leave what is there."""
    won = store.put_if_absent(taken, b"the second writer's\n")
    if won or store.read(taken) != taken.encode():
        raise UnfitStore(
            f"{store.root}: this store ignores the condition of a conditional write (`If-None-Match: *`): of "
            "two writers of one name both won. Two drivers would overwrite each other's plans and lose "
            "images, so no dataset is kept here. Use a store that keeps it (AWS S3, Ceph, MinIO, a local "
            "disk), or see whether a proxy in between drops the header"
        )
    store.put(PROMISE, b'{"put_if_absent": "the second writer lost"}\n')


def _is_there(store: ObjectStore, name: str) -> bool:
    try:
        store.stat(name)
    except ObjectNotFound:
        return False
    return True
