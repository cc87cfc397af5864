"""Where the members of a tar lie, and where it is damaged.

A tar is read header by header, because Python's tarfile ends silently at a flipped header byte or a cut
between two members. Here every way an archive can end is told apart: an end marker, or damage with its place.
Understood: v7, ustar, GNU long names, pax; member names are labels and never used as a path.

It does not know: compressed and sparse archives, and how to resynchronise after a damaged header.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 1 << 20  # of a long name or pax record; more is damage

_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_NO_DATA_TYPES = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)


@dataclass(frozen=True)
class TarMember:
    """A complete member.

    Attributes:
        name: as in the archive; bytes that aren't UTF-8 are shown as \\xNN.
        offset: of its first byte in the tar.
        size_bytes: length.
        is_file: False for folders, links, devices and sparse files.
    """

    name: str
    offset: int
    size_bytes: int
    is_file: bool


@dataclass(frozen=True)
class TarDamage:
    """Where a tar stops making sense; nothing after it is read.

    Attributes:
        member: the name of the member cut off, or "".
        offset: in the tar.
        detail: what is wrong.
    """

    member: str
    offset: int
    detail: str


def scan_tar(stream: BinaryIO, size_bytes: int) -> Iterator[TarMember | TarDamage]:
    """Complete members in order, then at most one damage.

    Args:
        stream: seekable, at its start. When a member is yielded it stands at the member's first byte; the
            consumer may read on from there.
        size_bytes: of the whole tar.
    """
    position, extended = 0, Extended()
    while True:
        stream.seek(position)
        block = stream.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            detail = "ends inside a header" if block else "ends without an end marker: it may have been cut"
            yield TarDamage("", position, detail)
            return
        if not any(block):
            yield from _after_end(stream, position)
            return

        # A header, whole and sane
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as exc:
            yield TarDamage("", position, f"damaged header ({exc})")
            return
        data_start = position + BLOCK_BYTES
        is_extension = extended.is_one(header)
        name, size = (header.name, header.size) if is_extension else extended.applied_to(header)
        if header.type in _NO_DATA_TYPES:
            size = 0
        if size < 0 or data_start + size > size_bytes or (is_extension and size > MAX_HEADER_BYTES):
            yield TarDamage(
                _label(name), position, f"member of {size} bytes, but the tar ends at {size_bytes}"
            )
            return

        # A word about the next member, or a member
        if is_extension:
            if not extended.take(header, stream.read(size)):
                yield TarDamage(_label(name), position, "damaged extended header")
                return
        else:
            is_file = header.type in _FILE_TYPES and not extended.sparse
            extended = Extended()
            yield TarMember(_label(name), data_start, size, is_file)
        position = data_start + -(-size // BLOCK_BYTES) * BLOCK_BYTES


class Extended:
    """What extra headers say about the next member."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._size: int | None = None
        self.sparse = self.given = False

    def is_one(self, header: tarfile.TarInfo) -> bool:
        """Whether it is about another member rather than one itself."""
        return header.type in (b"L", b"K", b"x", b"X", b"g")

    def applied_to(self, header: tarfile.TarInfo) -> tuple[str, int]:
        """Name and size of a member, the extra headers' values first."""
        name = header.name if self._name is None else self._name
        return name, header.size if self._size is None else self._size

    def take(self, header: tarfile.TarInfo, data: bytes) -> bool:
        """Remembers an extra header's content; False if it is damaged."""
        self.given = True
        if header.type == b"L":
            self._name = data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif header.type in (b"x", b"X"):
            return self._take_pax(data)
        return True  # of links (K) and of all members (g) nothing is needed

    def _take_pax(self, data: bytes) -> bool:
        while data and data[0]:
            length, space, _ = data.partition(b" ")
            if not (space and length.isdigit() and len(length) < int(length) <= len(data)):
                return False
            key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
            data = data[int(length) :]
            if key in (b"path", b"GNU.sparse.name"):
                self._name = value.decode("utf-8", "surrogateescape")
            elif key == b"size" and value.isdigit():
                self._size = int(value)
            self.sparse = self.sparse or key.startswith(b"GNU.sparse.")
        return True


def _after_end(stream: BinaryIO, position: int) -> Iterator[TarDamage]:
    """Nothing but zeros may follow the end marker: appended archives would be lost silently."""
    at = position + BLOCK_BYTES
    while data := stream.read(1 << 20):
        if data.count(0) != len(data):
            yield TarDamage("", at, f"data after the end marker at byte {position} is not read")
            return
        at += len(data)


def _label(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
