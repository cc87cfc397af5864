"""One S3 place: its client, its pages, and what its errors mean.

Credentials, region and endpoint come from boto3's own chain (environment, ~/.aws, instance roles;
`AWS_ENDPOINT_URL_S3` for other stores) and are never logged or put into a message. boto3 itself is loaded by
the first call.

It does not know: what is written where, and when a call is tried again beyond botocore's own attempts.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


class PastTheEnd(StorageError):
    """A range that begins where the object ends."""


@dataclass(frozen=True)
class S3Place:
    """A bucket and what our keys in it begin with, by its root: s3://bucket or s3://bucket/prefix."""

    root: str

    def __post_init__(self) -> None:
        if not self.root.startswith("s3://") or not self.bucket:
            raise InputError(f"{self.root}: no bucket named; use s3://bucket/prefix")

    @property
    def bucket(self) -> str:
        """Its name."""
        return self.root.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What all our keys begin with: empty, or a prefix and its slash."""
        prefix = self.root.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/" if prefix else ""

    def name_of(self, key: str) -> str:
        """The name of a key of ours."""
        return key[len(self.prefix) :]

    def of(self, name: str) -> dict[str, str]:
        """How a call names an object."""
        return {"Bucket": self.bucket, "Key": self.prefix + name}

    def address(self, name: str) -> str:
        """How a message names an object."""
        return f"{self.root}/{name}"

    def client(self) -> Any:
        """One client (a connection pool, thread-safe) per process and set of AWS_* variables."""
        identity = tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("AWS_")))
        return _make_client(os.getpid(), hashlib.sha256(repr(identity).encode()).hexdigest())

    def pages(self, operation: str, prefix: str, **arguments: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing of our names that begin with `prefix`, one in memory at a time.

        Args:
            operation: of boto3's client, one that it can page.
            prefix: of names.
            arguments: more of the operation's.

        Raises:
            StorageError: the store cannot be asked.
        """
        with self.errors(prefix or "listing"):
            paginator = self.client().get_paginator(operation)
            yield from paginator.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix, **arguments)

    def put(self, name: str, data: bytes, **conditions: str) -> None:
        """One PUT, its bytes checked by the store.

        Raises:
            StorageError, botocore's own: as the caller's `errors` has it.
        """
        self.client().put_object(**self.of(name), Body=data, ContentMD5=md5_text(data), **conditions)

    @contextmanager
    def errors(self, name: str, leave: tuple[str, ...] = ()) -> Iterator[None]:
        """botocore's errors become ours; ClientErrors whose code is in `leave` pass as they are.

        Raises:
            StorageError: what the error inside the block means for this object.
        """
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
            raise self.unanswered(name, exc) from exc

    def _translated(self, name: str, code: str, status: str, exc: Exception) -> StorageError:
        address = self.address(name)
        if code == "NoSuchBucket":
            return BucketNotFound(
                f"{self.root}: there is no bucket {self.bucket!r}; create it, or correct the address"
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
            return PastTheEnd(f"{address}: ends before that")
        if code in ("PreconditionFailed", "412"):
            return SourceChanged(f"{address}: changed while it was read")
        if code in ("BadDigest", "InvalidDigest"):
            return DamagedObject(f"{address}: damaged on its way to the store ({code})")
        return StoreUnavailable(f"{address}: the store failed ({code or status or type(exc).__name__})")

    def unanswered(self, name: str, exc: Exception) -> StorageError:
        """What it means that a call got no answer."""
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
            return InputError(f"{self.address(name)}: not a valid bucket or object name")
        return StoreUnavailable(
            f"{self.address(name)}: no answer from the store ({kind}); check the endpoint and network"
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


def bare_etag(etag: str) -> str:
    """An ETag without its quotes."""
    return etag.strip('"')


def md5_text(data: bytes) -> str:
    """Content-MD5 of a request's body."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
