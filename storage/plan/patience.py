"""Reads of a user's own files that end: within a deadline, or with an error that rejects the file.

A network mount whose server is gone answers nothing for ever, and no signal ends such a read. So each read of
a local source runs in a thread of its own, which is left behind when the deadline passes. While one read of a
folder hangs, others of that folder wait a second only: a dead mount of a million files is told soon.

It does not know: remote stores, whose clients have time-outs of their own.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from maskmill.storage.errors import SourceSilent
from maskmill.storage.stores.open import address_store, is_remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DEADLINE_S = 60.0
KNOWN_DEAD_S = 1.0
BUFFER_BYTES = 1 << 18

T = TypeVar("T")

_hanging: dict[str, threading.Thread] = {}
"""A read that never came back, by the folder of its source."""


def within(source: str, work: Callable[[], T], deadline_s: float | None = None) -> T:
    """What `work`, which reads `source`, gives.

    Args:
        source: absolute address of what is read.
        work: opens or reads it; its error is raised here.
        deadline_s: that it may take, `DEADLINE_S` if None.

    Raises:
        SourceSilent: nothing came within the deadline.
    """
    if is_remote(source):
        return work()
    folder = source.rpartition("/")[0]
    stuck = _hanging.get(folder)
    if stuck is not None and not stuck.is_alive():
        del _hanging[folder]  # the mount came back
        stuck = None
    patience_s = KNOWN_DEAD_S if stuck is not None else DEADLINE_S if deadline_s is None else deadline_s

    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
            errors.append(exc)

    reader = threading.Thread(target=run, name="read", daemon=True)
    reader.start()
    reader.join(patience_s)
    if reader.is_alive():
        _hanging.setdefault(folder, reader)
        raise SourceSilent(
            f"{source}: gave nothing for {patience_s:g} s; is the disk or network mount that holds it gone? "
            "Bring it back and run again"
        )
    if errors:
        raise errors[0]
    return results[0]


def open_patiently(source: str, start: int = 0, size: int | None = None) -> BinaryIO:
    """A source as a stream, each of whose reads has a deadline; to be closed by the caller.

    Raises:
        SourceSilent: it cannot be opened in time.
        StorageError: it cannot be opened.
    """
    store, name = address_store(source)
    stream = within(source, lambda: store.open_read(name, start, size))
    if is_remote(source):
        return stream
    return cast(BinaryIO, io.BufferedReader(_Patient(source, stream), BUFFER_BYTES))


class _Patient(io.RawIOBase):
    """A local stream, each of whose reads has a deadline."""

    def __init__(self, source: str, stream: BinaryIO) -> None:
        self._source, self._stream = source, stream

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See io.IOBase."""
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.IOBase."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """See io.IOBase."""
        return self._stream.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See io.RawIOBase. Raises SourceSilent."""
        view = memoryview(buffer).cast("B")
        data = within(self._source, lambda: self._stream.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """See io.IOBase."""
        if self._source.rpartition("/")[0] not in _hanging:  # closing would wait as long as the read does
            self._stream.close()
        super().close()
