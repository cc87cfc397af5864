"""An S3 bucket and prefix as an object store: AWS, Ceph, MinIO and their like.

Credentials, region and endpoint come from boto3's own chain (environment, ~/.aws, instance roles;
`AWS_ENDPOINT_URL_S3` for other stores) and are never logged or put into a message.
Written: one PUT, or a multipart upload for more than a part, aborted on an exception. First writer wins by
`If-None-Match: *`; on 412 or 409 what is there is read, since it may be our own retried PUT that won.
Reads resume after a broken connection from where they were, pinned to the same ETag.

It does not know: stores without conditional PUT. `If-None-Match` on multipart completion is not used
(Ceph ignores it): what is raced for is small and goes through `put_if_absent`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from maskmill.storage.errors import (
    AccessDenied,
    BucketNotFound,
    DamagedObject,
    InputError,
    ObjectNotFound,
    OutOfSpace,
    SourceChanged,
    StorageError,
    StoreUnavailable,
)
from maskmill.storage.stores.base import ObjectInfo, Unfinished, check_name

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

PART_BYTES = 16 << 20  # of a multipart upload: 10,000 parts make 160 GB
SKIP_BYTES = 1 << 20  # a seek forward within this reads on; a longer one asks anew
READ_ATTEMPTS = 8  # reconnections of one stream without a byte of progress
CONFLICT_ATTEMPTS = 20  # 409 while a concurrent writer is undecided

_DENIED = {
    "AccessDenied",
    "403",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}
_FULL = {"QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "507", "XMinioStorageFull"}
_ABSENT = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}


@dataclass(frozen=True)
class S3Store:
    """An ObjectStore over `root`, s3://bucket or s3://bucket/prefix. Connects on first use, per process."""

    root: str

    def __post_init__(self) -> None:
        if not self.root.startswith("s3://") or not self._bucket:
            raise InputError(f"{self.root}: no bucket named; use s3://bucket/prefix")

    @property
    def _bucket(self) -> str:
        return self.root.removeprefix("s3://").partition("/")[0]

    @property
    def _prefix(self) -> str:
        """What all our keys begin with: empty, or a prefix and its slash."""
        prefix = self.root.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/" if prefix else ""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        token: dict[str, str] = {}
        while True:
            with self._errors(prefix or "listing"):
                page = self._client().list_objects_v2(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, **token
                )
            for found in page.get("Contents", ()):
                name = found["Key"][len(self._prefix) :]
                yield ObjectInfo(name, found["Size"], _bare(found["ETag"]), found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        found: set[str] = set()
        token: dict[str, str] = {}
        while True:
            with self._errors(prefix or "listing"):
                page = self._client().list_objects_v2(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter="/", **token
                )
            skip = len(self._prefix) + len(prefix)
            found.update(common["Prefix"][skip:-1] for common in page.get("CommonPrefixes", ()))
            if not page.get("IsTruncated"):
                return tuple(sorted(found))
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, name: str) -> ObjectInfo:
        with self._errors(name):
            head = self._client().head_object(**self._object(name))
        return ObjectInfo(name, head["ContentLength"], _bare(head["ETag"]), head["LastModified"].timestamp())

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        with self.open_read(name, start, size) as stream:
            return stream.read()

    def open_read(self, name: str, start: int = 0, size: int | None = None) -> BinaryIO:
        raw = _ResumingReader(self, name, start, size)
        return cast(BinaryIO, io.BufferedReader(raw, buffer_size=1 << 18))

    @contextmanager
    def open_write(self, name: str) -> Iterator[BinaryIO]:
        check_name(name)
        writer = _PartsWriter(self, name)
        try:
            yield cast(BinaryIO, writer)
            writer.publish()
        except BaseException:
            writer.abandon()
            raise

    def put_if_absent(self, name: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        check_name(name)
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                with self._errors(
                    name, leave=("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
                ):
                    self._put(name, data, IfNoneMatch="*")
                return True
            except ClientError:
                pass  # somebody's bytes are there or on their way
            try:
                return self.read(name) == data
            except ObjectNotFound:  # 409: the other writer is undecided, or it was deleted since
                time.sleep(min(2.0, 0.05 * 2**attempt))
        raise StoreUnavailable(f"{self._address(name)}: conditional writes keep conflicting; try again")

    def put(self, name: str, data: bytes) -> None:
        check_name(name)
        with self._errors(name):
            self._put(name, data)

    def delete(self, name: str) -> None:
        check_name(name)
        with self._errors(name):
            self._client().delete_object(**self._object(name))

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        marker: dict[str, str] = {}
        while True:
            with self._errors(prefix or "listing uploads"):
                page = self._client().list_multipart_uploads(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, **marker
                )
            for upload in page.get("Uploads", ()):
                name = upload["Key"][len(self._prefix) :]
                yield Unfinished(name, upload["UploadId"], 0, upload["Initiated"].timestamp())
            if not page.get("IsTruncated"):
                return
            marker = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def abandon(self, write: Unfinished) -> None:
        with suppress(ObjectNotFound), self._errors(write.name):
            self._client().abort_multipart_upload(**self._object(write.name), UploadId=write.upload_id)

    def _put(self, name: str, data: bytes, **conditions: str) -> None:
        self._client().put_object(**self._object(name), Body=data, ContentMD5=_md5(data), **conditions)

    def _object(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _address(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _client(self) -> Any:
        """One client (a connection pool, thread-safe) per process and set of AWS_* variables."""
        identity = tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("AWS_")))
        return _make_client(os.getpid(), hashlib.sha256(repr(identity).encode()).hexdigest())

    @contextmanager
    def _errors(self, name: str, leave: tuple[str, ...] = ()) -> Iterator[None]:
        """botocore's errors become ours; ClientErrors whose code is in `leave` pass as they are."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            status = str(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
            if code in leave or status in leave:
                raise
            raise self._translated(name, code, status, exc) from exc
        except (BotoCoreError, HTTPClientError) as exc:
            raise self._unanswered(name, exc) from exc

    def _translated(self, name: str, code: str, status: str, exc: Exception) -> StorageError:
        address = self._address(name)
        if code == "NoSuchBucket":
            return BucketNotFound(
                f"{self.root}: there is no bucket {self._bucket!r}; create it, or correct the address"
            )
        if code in _ABSENT:
            return ObjectNotFound(f"{address}: no such object")
        if code in _DENIED or status in ("401", "403"):
            return AccessDenied(
                f"{address}: the store refused ({code or status}); check the credentials and the policy"
            )
        if code in _FULL or status in _FULL:
            return OutOfSpace(
                f"{address}: the store is full ({code or status}); free some space or raise the quota"
            )
        if code in ("InvalidRange", "416"):
            return _PastTheEnd(f"{address}: ends before that")
        if code in ("PreconditionFailed", "412"):
            return SourceChanged(f"{address}: changed while it was read")
        if code in ("BadDigest", "InvalidDigest"):
            return DamagedObject(f"{address}: damaged on its way to the store ({code})")
        return StoreUnavailable(f"{address}: the store failed ({code or status or type(exc).__name__})")

    def _unanswered(self, name: str, exc: Exception) -> StorageError:
        kind = type(exc).__name__
        if kind in (
            "NoCredentialsError",
            "PartialCredentialsError",
            "ProfileNotFound",
            "CredentialRetrievalError",
        ):
            return AccessDenied(f"{self.root}: no usable credentials ({kind}); set AWS_ACCESS_KEY_ID and "
                                "AWS_SECRET_ACCESS_KEY, a profile, or an instance role")  # fmt: skip
        if kind == "ParamValidationError":
            return InputError(f"{self._address(name)}: not a valid bucket or object name")
        return StoreUnavailable(
            f"{self._address(name)}: no answer from the store ({kind}); check the endpoint and network"
        )


_client_lock = threading.Lock()


def _make_client(pid: int, identity: str) -> Any:
    with _client_lock:  # making one isn't thread-safe, using it is
        return _cached_client(pid, identity)


@lru_cache(maxsize=8)
def _cached_client(pid: int, identity: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 10, "mode": "standard"},
        max_pool_connections=64,
        connect_timeout=10,
        read_timeout=60,
        tcp_keepalive=True,
    )
    return boto3.session.Session().client("s3", config=config)


class _ResumingReader(io.RawIOBase):
    """An object's bytes from `start`, over as many connections as it takes, all of one ETag."""

    def __init__(self, store: S3Store, name: str, start: int, size: int | None) -> None:
        self._store, self._name, self._start = store, name, start
        self._etag, self._at = "", start
        self._end: int | None = None if size is None else start + size
        self._body: Any = None
        if size == 0:
            store.stat(name)
        else:
            self._connect()

    def _connect(self) -> None:
        """Asks for the bytes from where we are; the first time, learns how far they go."""
        options: dict[str, str] = {"IfMatch": self._etag} if self._etag else {}
        if self._at or self._end is not None:
            options["Range"] = f"bytes={self._at}-{'' if self._end is None else self._end - 1}"
        try:
            with self._store._errors(self._name):
                found = self._store._client().get_object(**self._store._object(self._name), **options)
        except _PastTheEnd:
            self._end = self._start
            return
        self._etag = _bare(found["ETag"])
        self._end = self._at + found["ContentLength"]
        self._body = found["Body"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._last}[whence]
        target = max(self._start, base + offset)
        if self._body is not None and self._at < target <= min(self._at + SKIP_BYTES, self._last):
            while self._at < target and self.readinto(bytearray(target - self._at)):
                pass
        elif target != self._at:
            self._drop_body()
            self._at = target
        return self.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._last - self._at)]
        if not view:
            return 0
        for attempt in range(READ_ATTEMPTS):
            data = self._receive(len(view), last=attempt == READ_ATTEMPTS - 1)
            if data:
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            self._drop_body()
            time.sleep(min(2.0, 0.05 * 2**attempt))
        raise StoreUnavailable(
            f"{self._store._address(self._name)}: the connection keeps breaking at byte {self._at}"
        )

    def _receive(self, num_bytes: int, last: bool) -> bytes:
        """Up to `num_bytes`; empty when the connection broke (an error if it was the last attempt)."""
        from botocore.exceptions import BotoCoreError, HTTPClientError
        from urllib3.exceptions import HTTPError

        try:
            if self._body is None:
                self._connect()
            return cast(bytes, self._body.read(num_bytes))
        except (BotoCoreError, HTTPClientError, HTTPError, OSError) as exc:
            if last:
                raise self._store._unanswered(self._name, exc) from exc
            return b""

    @property
    def _last(self) -> int:
        """Where the bytes end; known since the first connection."""
        assert self._end is not None
        return self._end

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._drop_body()
        super().close()


class _PastTheEnd(StorageError):
    """A range that begins where the object ends."""


class _PartsWriter(io.RawIOBase):
    """Collects parts; one PUT if all fits into one, else a multipart upload. Publishes nothing by itself."""

    def __init__(self, store: S3Store, name: str) -> None:
        self._store, self._name = store, name
        self._buffer = bytearray()
        self._num_bytes = 0
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data)
        self._buffer += view
        self._num_bytes += view.nbytes
        while len(self._buffer) > PART_BYTES:
            part = bytes(memoryview(self._buffer)[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send_part(part)
        return view.nbytes

    def publish(self) -> None:
        """Makes the object appear, whole."""
        with self._store._errors(self._name):
            if not self._upload_id:
                self._store._put(self._name, bytes(self._buffer))
                return
            self._send_part(bytes(self._buffer))
            self._store._client().complete_multipart_upload(
                **self._store._object(self._name),
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )
        found = self._store.stat(self._name)
        if found.size_bytes != self._num_bytes:
            raise DamagedObject(
                f"{self._store._address(self._name)}: {self._num_bytes} bytes sent, {found.size_bytes} stored"
            )

    def abandon(self) -> None:
        """Tells the store to forget the parts; if it can't be reached, its own clean-up of uploads has to."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._upload_id:
            with suppress(BotoCoreError, ClientError):  # the first error is on its way
                self._store._client().abort_multipart_upload(
                    **self._store._object(self._name), UploadId=self._upload_id
                )
            self._upload_id = ""

    def _send_part(self, part: bytes) -> None:
        with self._store._errors(self._name):
            client, where = self._store._client(), self._store._object(self._name)
            if not self._upload_id:
                self._upload_id = client.create_multipart_upload(**where)["UploadId"]
            number = len(self._parts) + 1
            sent = client.upload_part(
                **where, UploadId=self._upload_id, PartNumber=number, Body=part, ContentMD5=_md5(part)
            )
            self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


def _bare(etag: str) -> str:
    return etag.strip('"')


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
