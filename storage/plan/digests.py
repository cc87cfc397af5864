"""Digests with a few bytes each, millions of them: a hash table inside one bytearray.

A dict of such pairs costs Python three objects an entry, 200 bytes and more; here an entry takes its own
bytes 1.5 to 3 times. One thread may write while others read.

It does not know: removing an entry; keys that are not spread evenly (digests are).
"""

from __future__ import annotations

MAX_LOAD = 0.67


class DigestTable:
    """Fixed-size keys to fixed-size values.

    Args:
        key_bytes: of each key, at least 8; a key of zeros alone cannot be kept.
        value_bytes: of each value.
    """

    def __init__(self, key_bytes: int, value_bytes: int) -> None:
        self._key_bytes, self._slot_bytes = key_bytes, key_bytes + value_bytes
        self._empty = bytes(key_bytes)
        self._slots, self._mask = bytearray(1024 * self._slot_bytes), 1023
        self._table = (self._slots, self._mask)  # one assignment swaps both for readers
        self._num_entries = 0

    def __len__(self) -> int:
        return self._num_entries

    @property
    def size_bytes(self) -> int:
        """Memory that the table takes."""
        return len(self._slots)

    def get(self, key: bytes) -> bytes | None:
        """The value, None if the key isn't there."""
        slots, mask = self._table
        at = self._place(slots, mask, key)
        if slots[at : at + self._key_bytes] == self._empty:
            return None
        return bytes(slots[at + self._key_bytes : at + self._slot_bytes])

    def put(self, key: bytes, value: bytes) -> None:
        """Sets the value; replaces another one."""
        assert len(key) == self._key_bytes and len(key) + len(value) == self._slot_bytes
        assert key != self._empty
        at = self._place(self._slots, self._mask, key)
        if self._slots[at : at + self._key_bytes] == self._empty:
            if self._num_entries >= MAX_LOAD * (self._mask + 1):
                self._grow()
                at = self._place(self._slots, self._mask, key)
            self._num_entries += 1
        self._slots[at : at + self._slot_bytes] = key + value

    def _place(self, slots: bytearray, mask: int, key: bytes) -> int:
        """Where the key is, or the empty slot where it belongs."""
        width, key_bytes, empty = self._slot_bytes, self._key_bytes, self._empty
        index = int.from_bytes(key[:8], "little") & mask
        while True:
            at = index * width
            there = slots[at : at + key_bytes]
            if there in (key, empty):
                return at
            index = (index + 1) & mask

    def _grow(self) -> None:
        old, width, key_bytes, empty = self._slots, self._slot_bytes, self._key_bytes, self._empty
        mask = 2 * self._mask + 1
        slots = bytearray((mask + 1) * width)
        for start in range(0, len(old), width):
            key = bytes(old[start : start + key_bytes])
            if key != empty:
                at = self._place(slots, mask, key)
                slots[at : at + width] = old[start : start + width]
        self._slots, self._mask = slots, mask
        self._table = (slots, mask)
