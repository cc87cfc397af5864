"""Tars as shards are: plain members, one after the other, written and read without a detour.

Python's tarfile copies every byte twice more when it streams, and takes 30 us a member; webdataset's writer,
on top of it, imports torch. Here a header is a template with name and size filled in, the same bytes as
tarfile's PAX format (its oracle in the tests); what doesn't fit a plain header (long or non-ASCII names)
tarfile makes.

It does not know: links, folders, sparse members (damage, in a shard); seeking (tars.py).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.tars import BLOCK_BYTES, MAX_HEADER_BYTES, Extended

MODE, OWNER = 0o444, "bigdata"  # webdataset's
RECORD_BYTES = 20 * BLOCK_BYTES
ZEROS = bytes(RECORD_BYTES)
_NAME_BYTES = 100
_MAX_SIZE = 8**11  # octal digits of a plain header
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(frozen=True)
class Member:
    """A member, whole."""

    name: str
    content: bytes


def member_header(name: str, size_bytes: int) -> bytes:
    """What stands before a member's bytes. Raises ValueError for what no tar can hold."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > _NAME_BYTES or not encoded.isascii() or size_bytes >= _MAX_SIZE:
        return _info(name, size_bytes).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    size = b"%011o" % size_bytes
    checksum = _TEMPLATE_SUM + sum(encoded) + sum(size)
    return b"".join(
        (
            encoded.ljust(_NAME_BYTES, b"\0"),
            _TEMPLATE[_NAME_BYTES:124],
            size,
            _TEMPLATE[135:148],
            b"%06o\0" % checksum,
            _TEMPLATE[155:],
        )
    )


def padding(size_bytes: int) -> bytes:
    """The zeros after a member's bytes."""
    return ZEROS[: -size_bytes % BLOCK_BYTES]


def end_marker(num_bytes: int) -> bytes:
    """What ends a tar after so many bytes: two empty blocks, filled up to a record."""
    return ZEROS[: 2 * BLOCK_BYTES] + ZEROS[: -(num_bytes + 2 * BLOCK_BYTES) % RECORD_BYTES]


def read_members(read: Callable[[int], bytes], size_bytes: int) -> Iterator[Member]:
    """The members of a tar up to its end marker.

    Args:
        read: gives the next bytes, as many as asked for unless the tar ends.
        size_bytes: of the whole tar: no member can be larger, whatever its header says.

    Raises:
        DamagedObject: anything that is not a plain member, whole, or the tar ends without an end marker.
    """
    extended = Extended()
    block = read(BLOCK_BYTES)
    while any(block):
        if len(block) < BLOCK_BYTES:
            raise DamagedObject("ends inside a header")
        name, size, kind = _plain_header(block)
        if kind not in _PLAIN or extended.given:
            header = _any_header(block)
            is_extension = extended.is_one(header)
            name, size = (header.name, header.size) if is_extension else extended.applied_to(header)
            if not is_extension and (kind not in _PLAIN or extended.sparse):
                raise DamagedObject(f"{name!r} is not a plain file")
            if is_extension and size > MAX_HEADER_BYTES:
                raise DamagedObject(f"an extended header of {size} bytes")
        if not 0 <= size <= size_bytes:
            raise DamagedObject(f"{name!r} of {size} bytes in a tar of {size_bytes}")

        # Its bytes, the filling, and the next header
        content = read(size)
        filling = -size % BLOCK_BYTES
        after = read(filling + BLOCK_BYTES)
        if len(content) < size or len(after) < filling:
            raise DamagedObject(f"ends inside {name!r}")

        if kind in _PLAIN:
            yield Member(name, content)
            extended = Extended()
        elif not extended.take(header, content):
            raise DamagedObject("a damaged extended header")
        block = after[filling:]
    if not block:
        raise DamagedObject("ends without an end marker")


def _plain_header(block: bytes) -> tuple[str, int, bytes]:
    """Name, size and type, its checksum verified; a size of -1 is in another notation."""
    stored = block[148:156].strip(b" \0")
    if not stored.isdigit() or int(stored, 8) != sum(block) - sum(block[148:156]) + 8 * 32:
        raise DamagedObject("a damaged header")
    kind, digits = block[156:157], block[124:136].strip(b" \0")
    try:
        name = block[:_NAME_BYTES].split(b"\0", 1)[0].decode()
        prefix = block[345:500].split(b"\0", 1)[0].decode()
        size = int(digits, 8) if digits else 0
    except ValueError:
        header = _any_header(block)
        return header.name, header.size, kind
    return f"{prefix}/{name}" if prefix else name, size, kind


def _any_header(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as exc:
        raise DamagedObject(f"a damaged header ({exc})") from exc


def _info(name: str, size_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode, info.uname, info.gname = size_bytes, 0, MODE, OWNER, OWNER
    return info


_TEMPLATE = _info("", 0).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
_TEMPLATE_SUM = sum(_TEMPLATE[:124]) + sum(_TEMPLATE[135:148]) + 8 * 32 + sum(_TEMPLATE[156:])
