from __future__ import annotations

from hashlib import blake2b

import pytest

from maskmill.storage.plan.digests import DigestTable


def key(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=12).digest()


def test_a_table_is_a_dict_in_little_memory() -> None:
    table, oracle = DigestTable(12, 5), dict[bytes, bytes]()
    for number in range(20_000):
        for value in (number, 2 * number) if number % 3 else (number,):
            table.put(key(number), value.to_bytes(5, "little"))
            oracle[key(number)] = value.to_bytes(5, "little")
    assert len(table) == len(oracle) == 20_000
    assert all(table.get(name) == value for name, value in oracle.items())
    assert all(table.get(key(number)) is None for number in range(20_000, 21_000))
    assert table.size_bytes < 20_000 * 17 * 3.1


def test_keys_whose_first_bytes_agree_are_kept_apart() -> None:
    table = DigestTable(12, 1)
    for number in range(300):
        table.put(b"samefirst" + number.to_bytes(3, "big"), bytes([number % 256]))
    assert [table.get(b"samefirst" + number.to_bytes(3, "big")) for number in (0, 255, 299)] == [
        b"\x00",
        b"\xff",
        b"\x2b",
    ]


def test_what_does_not_fit_is_a_bug() -> None:
    table = DigestTable(12, 1)
    for name, value in ((bytes(12), b"x"), (key(1)[:8], b"x"), (key(1), b"xy")):
        with pytest.raises(AssertionError):
            table.put(name, value)
