"""An S3 object as a stream: reads that outlive a broken connection, writes in parts.

It does not know: when a write is to appear; its caller publishes or abandons it.
"""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from maskmill.storage.errors import DamagedObject, StoreUnavailable
from maskmill.storage.stores.s3_client import PastTheEnd, S3Place, bare_etag, md5_text

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

PART_BYTES = 16 << 20  # of a multipart upload: 10,000 parts make 160 GB
SKIP_BYTES = 1 << 20  # a seek forward within this reads on; a longer one asks anew
READ_ATTEMPTS = 8  # reconnections of one stream without a byte of progress


class ResumingReader(io.RawIOBase):
    """An object's bytes from `start`, over as many connections as it takes, all of one ETag."""

    def __init__(self, place: S3Place, name: str, start: int, size: int | None) -> None:
        self._place, self._name, self._start = place, name, start
        self._etag, self._at = "", start
        self._end: int | None = None if size is None else start + size
        self._body: Any = None
        self._connect()

    def _connect(self) -> None:
        """Asks for the bytes from where we are; the first time, learns how far they go."""
        options: dict[str, str] = {"IfMatch": self._etag} if self._etag else {}
        if self._at or self._end is not None:
            options["Range"] = f"bytes={self._at}-{'' if self._end is None else self._end - 1}"
        try:
            with self._place.errors(self._name):
                found = self._place.client().get_object(**self._place.of(self._name), **options)
        except PastTheEnd:
            self._end = self._start
            return
        self._etag = bare_etag(found["ETag"])
        self._end = self._at + found["ContentLength"]
        self._body = found["Body"]

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self._at - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.IOBase: from the start of the range."""
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
        """See io.RawIOBase.

        Raises:
            StoreUnavailable: the connection breaks again and again without a byte of progress.
            SourceChanged: another object has that name now.
        """
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
            f"{self._place.address(self._name)}: the connection keeps breaking at byte {self._at}"
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
                raise self._place.unanswered(self._name, exc) from exc
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
        """See io.IOBase."""
        self._drop_body()
        super().close()


class PartsWriter(io.RawIOBase):
    """Collects parts; one PUT if all fits into one, else a multipart upload. Publishes nothing by itself."""

    def __init__(self, place: S3Place, name: str) -> None:
        self._place, self._name = place, name
        self._buffer = bytearray()
        self._num_bytes = 0
        self._upload_id = ""
        self._parts: list[dict[str, Any]] = []

    def writable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self._num_bytes

    def write(self, data: ReadableBuffer) -> int:
        """See io.RawIOBase. Raises StorageError."""
        view = memoryview(data)
        self._buffer += view
        self._num_bytes += view.nbytes
        while len(self._buffer) > PART_BYTES:
            part = bytes(memoryview(self._buffer)[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send_part(part)
        return view.nbytes

    def publish(self) -> None:
        """Makes the object appear, whole.

        Raises:
            DamagedObject: the store has another number of bytes.
            StorageError: it cannot be written.
        """
        with self._place.errors(self._name):
            if not self._upload_id:
                self._place.put(self._name, bytes(self._buffer))
                return
            self._send_part(bytes(self._buffer))
            self._place.client().complete_multipart_upload(
                **self._place.of(self._name),
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )
            stored = self._place.client().head_object(**self._place.of(self._name))["ContentLength"]
        if stored != self._num_bytes:
            raise DamagedObject(
                f"{self._place.address(self._name)}: {self._num_bytes} bytes sent, {stored} stored"
            )

    def abandon(self) -> None:
        """Tells the store to forget the parts; if it can't be reached, its own clean-up of uploads has to."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._upload_id:
            with suppress(BotoCoreError, ClientError):  # the first error is on its way
                self._place.client().abort_multipart_upload(
                    **self._place.of(self._name), UploadId=self._upload_id
                )
            self._upload_id = ""

    def _send_part(self, part: bytes) -> None:
        with self._place.errors(self._name):
            client, where = self._place.client(), self._place.of(self._name)
            if not self._upload_id:
                self._upload_id = client.create_multipart_upload(**where)["UploadId"]
            number = len(self._parts) + 1
            sent = client.upload_part(
                **where, UploadId=self._upload_id, PartNumber=number, Body=part, ContentMD5=md5_text(part)
            )
            self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
