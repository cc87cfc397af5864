"""Named bytes under a root: a local folder or an S3 prefix behind one interface.

A store is small, frozen and picklable: a worker gets it by value and opens its own files or connections.
Names are relative to the root and '/' separated. What is written appears whole or not at all, and is
durable when the call returns. `put_if_absent` is the one way to decide a race: of several writers of
different bytes exactly one gets True.

It does not know: what the bytes mean, and which kinds of store there are (open.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from maskmill.storage.errors import InputError

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


@dataclass(frozen=True)
class StoreKind:
    """A kind of store: each has a file of its own, and a line in open.py.

    Attributes:
        scheme: what its addresses begin with, before "://"; "" for plain paths.
        form: of a dataset's address, for people: "s3://bucket/prefix".
        make: gives the store of a root; touches nothing. Raises InputError for a root that cannot be one.
    """

    scheme: str
    form: str
    make: Callable[[str], ObjectStore]


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
