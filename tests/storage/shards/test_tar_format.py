from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.tar_format import Member, end_marker, member_header, padding, read_members

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=150)


def ours(members: list[tuple[str, bytes]]) -> bytes:
    body = b"".join(member_header(name, len(data)) + data + padding(len(data)) for name, data in members)
    return body + end_marker(len(body))


def tarfiles(members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """The oracle: what webdataset's writer has tarfile write."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w|", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uname, info.gname = len(data), 0o444, "bigdata", "bigdata"
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def read(data: bytes) -> list[Member]:
    return list(read_members(io.BytesIO(data).read, len(data)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=5))
def test_bytes_are_those_of_tarfile_and_come_back(members: list[tuple[str, bytes]]) -> None:
    data = ours(members)
    assert data == tarfiles(members)
    assert read(data) == [Member(name, content) for name, content in members]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**11 - 1, 8**11, 10**13])
@pytest.mark.parametrize("name", ["a.jpg", "x" * 100, "x" * 101, "\u00e9.json"])
def test_headers_of_any_size_are_tarfiles(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname = size, 0o444, "bigdata", "bigdata"
    assert member_header(name, size) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_other_writers_tars_are_read(format: int) -> None:
    long = "a/" * 60 + "name.jpg"
    members = [("000000001.jpg", b"x" * 700), (long, b"y"), ("000000002.json", b"")]
    assert read(tarfiles(members, format)) == [Member(*member) for member in members]


def link() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    return target.getvalue()


GOOD = ours([("a.jpg", b"z" * 700), ("a.json", b"{}")])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "without an end marker"),
        (GOOD[:100], "inside a header"),
        (GOOD[:600], "'a.jpg' of 700 bytes in a tar of 600"),
        (GOOD[: 512 + 1024 + 512 + 1], "inside 'a.json'"),
        (GOOD[: 512 + 1024], "without an end marker"),
        (GOOD[: 512 + 1024 + 10], "inside a header"),
        (b"b" + GOOD[1:], "damaged header"),
        (link(), "not a plain file"),
        (member_header("big", 10**9), "in a tar of 512"),
        (member_header("big", 10**13), "in a tar of"),
        (ours([("x" * 200, b"")]).replace(b" path=", b"xpath="), "damaged extended"),
    ],
)
def test_anything_else_is_damage(data: bytes, told: str) -> None:
    with pytest.raises(DamagedObject, match=told):
        read(data)
