from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.storage.shards.tars import TarDamage, TarMember, scan_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def make_tar(files: list[tuple[str, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def scan(data: bytes) -> list[TarMember | TarDamage]:
    return list(scan_tar(io.BytesIO(data), len(data)))


def contents(data: bytes) -> list[tuple[str, bytes]]:
    found = scan(data)
    assert all(isinstance(one, TarMember) for one in found), found
    return [
        (one.name, data[one.offset : one.offset + one.size_bytes])
        for one in found
        if isinstance(one, TarMember)
    ]


@pytest.mark.parametrize("tar_format", FORMATS)
def test_members_lie_where_the_scan_says(tar_format: int) -> None:
    files = [("a.jpg", b"1" * 700), ("d/" * 40 + "b.jpg", b""), ("c.jpg", b"3" * 512)]
    assert contents(make_tar(files, tar_format)) == files


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300
            ).filter(lambda name: name.rstrip("/") == name),
            st.binary(max_size=1500),
        ),
        max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_odd_and_long_names_are_read(files: list[tuple[str, bytes]], tar_format: int) -> None:
    assert contents(make_tar(files, tar_format)) == files


def test_names_are_labels_only() -> None:
    files = [("../../etc/passwd.jpg", b"1"), ("/root/x.jpg", b"2")]
    assert contents(make_tar(files)) == files


def test_names_that_are_no_utf8_are_shown() -> None:
    data = make_tar([("caf\udce9.jpg", b"1")], tarfile.GNU_FORMAT)
    assert contents(data) == [("caf\\xe9.jpg", b"1")]


def test_what_is_no_plain_file_is_told_apart() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    found = scan(target.getvalue())
    assert [(one.name, one.is_file) for one in found if isinstance(one, TarMember)] == [
        ("d", False),
        ("s.jpg", False),
        ("h.jpg", False),
    ]


THREE = make_tar(
    [("a.jpg", b"1" * 1000), ("b.jpg", b"2" * 1000), ("c.jpg", b"3" * 1000)], tarfile.USTAR_FORMAT
)
MEMBER = 512 + 1024  # header and padded data


@pytest.mark.parametrize(
    ("cut_at", "num_complete", "member", "told"),
    [
        (3 * MEMBER, 3, "", "without an end marker"),
        (2 * MEMBER, 2, "", "without an end marker"),
        (2 * MEMBER + 100, 2, "", "inside a header"),
        (2 * MEMBER + 512 + 999, 2, "c.jpg", "but the tar ends at"),
        (512, 0, "a.jpg", "but the tar ends at"),
    ],
)
def test_every_cut_is_found_and_what_is_complete_kept(
    cut_at: int, num_complete: int, member: str, told: str
) -> None:
    *complete, damage = scan(THREE[:cut_at])
    assert [one.name for one in complete if isinstance(one, TarMember)] == ["a.jpg", "b.jpg", "c.jpg"][
        :num_complete
    ]
    assert isinstance(damage, TarDamage)
    assert damage.member == member
    assert told in damage.detail


def test_a_flipped_header_byte_is_found() -> None:
    data = bytearray(THREE)
    data[MEMBER + 5] ^= 1
    first, damage = scan(bytes(data))
    assert isinstance(first, TarMember)
    assert isinstance(damage, TarDamage)
    assert (damage.offset, "damaged header" in damage.detail) == (MEMBER, True)


def test_an_archive_appended_after_the_end_marker_is_told() -> None:
    *members, damage = scan(THREE + THREE)
    assert len(members) == 3
    assert isinstance(damage, TarDamage)
    assert "after the end marker" in damage.detail


@pytest.mark.parametrize("data", [b"", b"no tar" * 1000, bytes(100)])
def test_what_is_no_tar_is_damage(data: bytes) -> None:
    (damage,) = scan(data)
    assert isinstance(damage, TarDamage)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(THREE) - 1), st.integers(1, 255))
def test_no_flipped_byte_raises_or_loops(position: int, mask: int) -> None:
    data = bytearray(THREE)
    data[position] ^= mask
    for one in scan(bytes(data)):
        assert one.offset <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(THREE)))
def test_no_cut_loses_a_complete_member(cut_at: int) -> None:
    complete = [one for one in scan(THREE[:cut_at]) if isinstance(one, TarMember)]
    assert len(complete) == sum(cut_at >= number * MEMBER + 512 + 1000 for number in range(3))
