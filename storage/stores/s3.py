"""An S3 bucket and prefix as an object store: AWS, Ceph, MinIO and their like.

Written: one PUT, or a multipart upload for more than a part, aborted on an exception. First writer wins by
`If-None-Match: *`; on 412 or 409 what is there is read, since it may be our own retried PUT that won.
Reads resume after a broken connection from where they were, pinned to the same ETag.

It does not know: stores without conditional PUT. `If-None-Match` on multipart completion is not used
(Ceph ignores it): what is raced for is small and goes through `put_if_absent`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from maskmill.storage.errors import ObjectNotFound, StoreUnavailable
from maskmill.storage.stores.base import ObjectInfo, StoreKind, Unfinished, check_name
from maskmill.storage.stores.s3_client import S3Place, bare_etag
from maskmill.storage.stores.s3_streams import PartsWriter, ResumingReader

CONFLICT_ATTEMPTS = 20  # 409 while a concurrent writer is undecided

_TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


@dataclass(frozen=True)
class S3Store:
    """An ObjectStore over `root`, s3://bucket or s3://bucket/prefix. Connects on first use, per process."""

    root: str

    def __post_init__(self) -> None:
        S3Place(self.root)  # refuses what names no bucket

    @property
    def place(self) -> S3Place:
        """The bucket and prefix."""
        return S3Place(self.root)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`."""
        place = self.place
        for page in place.pages("list_objects_v2", prefix):
            for found in page.get("Contents", ()):
                modified_s = found["LastModified"].timestamp()
                name = place.name_of(found["Key"])
                yield ObjectInfo(name, found["Size"], bare_etag(found["ETag"]), modified_s)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """See `ObjectStore.folders`."""
        skip = len(self.place.prefix) + len(prefix)
        pages = self.place.pages("list_objects_v2", prefix, Delimiter="/")
        return tuple(
            sorted({one["Prefix"][skip:-1] for page in pages for one in page.get("CommonPrefixes", ())})
        )

    def stat(self, name: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        with self.place.errors(name):
            head = self.place.client().head_object(**self.place.of(name))
        modified_s = head["LastModified"].timestamp()
        return ObjectInfo(name, head["ContentLength"], bare_etag(head["ETag"]), modified_s)

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        with self.open_read(name, start, size) as stream:
            return stream.read()

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        """See `ObjectStore.open_read`."""
        if size == 0:
            self.stat(name)
            return io.BytesIO()
        raw = ResumingReader(self.place, name, start, size)
        return cast(BinaryIO, io.BufferedReader(raw, buffer_size=1 << 18))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        """See `ObjectStore.open_write`."""
        check_name(name)
        writer = PartsWriter(self.place, name)
        try:
            yield cast(BinaryIO, writer)
            writer.publish()
        except BaseException:
            writer.abandon()
            raise

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """See `ObjectStore.put_if_absent`.

        Raises:
            StoreUnavailable: another writer stays undecided.
        """
        from botocore.exceptions import ClientError

        check_name(name)
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                with self.place.errors(name, leave=_TAKEN):
                    self.place.put(name, data, IfNoneMatch="*")
                return True
            except ClientError:
                pass  # somebody's bytes are there or on their way
            try:
                return self.read(name) == data
            except ObjectNotFound:  # 409: the other writer is undecided, or it was deleted since
                time.sleep(min(2.0, 0.05 * 2**attempt))
        raise StoreUnavailable(f"{self.place.address(name)}: conditional writes keep conflicting; try again")

    def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore.put`."""
        check_name(name)
        with self.place.errors(name):
            self.place.put(name, data)

    def delete(self, name: str) -> None:
        """See `ObjectStore.delete`."""
        check_name(name)
        with self.place.errors(name):
            self.place.client().delete_object(**self.place.of(name))

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        """See `ObjectStore.unfinished`."""
        for page in self.place.pages("list_multipart_uploads", prefix):
            for upload in page.get("Uploads", ()):
                name = self.place.name_of(upload["Key"])
                yield Unfinished(name, upload["UploadId"], 0, upload["Initiated"].timestamp())

    def abandon(self, write: Unfinished) -> None:
        """See `ObjectStore.abandon`."""
        with suppress(ObjectNotFound), self.place.errors(write.name):
            self.place.client().abort_multipart_upload(**self.place.of(write.name), UploadId=write.upload_id)


KIND = StoreKind("s3", "s3://bucket/prefix", S3Store)
