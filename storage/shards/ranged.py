"""An object of a store as a file that can be jumped about in: every read is one ranged request."""

from __future__ import annotations

import io
import os
from typing import Any

from maskmill.storage.stores.base import ObjectStore


class RangedFile(io.RawIOBase):
    """An object of known size.

    Args:
        store: that has it.
        name: of the object.
        size_bytes: its length.
    """

    def __init__(self, store: ObjectStore, name: str, size_bytes: int) -> None:
        self._store, self._name, self._size_bytes, self._at = store, name, size_bytes, 0

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def seekable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See io.IOBase."""
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence] + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """See io.RawIOBase. Raises StorageError."""
        left = self._size_bytes - self._at
        data = self._store.read(self._name, self._at, left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase; what a BufferedReader calls. Raises StorageError."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
