from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskmill.workers.shard.ahead import map_ahead, read_ahead


def numbers(count: int, pulled: list[int], fail_at: int | None = None) -> Iterator[int]:
    for i in range(count):
        if i == fail_at:
            raise ValueError(f"no {i}")
        pulled.append(i)
        yield i


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_read_ahead_keeps_order_and_bound(depth: int) -> None:
    pulled: list[int] = []
    got = []
    for i in read_ahead(numbers(20, pulled), depth):
        got.append(i)
        time.sleep(0.001)
        assert len(pulled) <= len(got) + depth
    assert got == list(range(20))


def test_read_ahead_gives_an_error_at_its_place() -> None:
    reading = read_ahead(numbers(9, [], fail_at=2), 4)
    assert [next(reading), next(reading)] == [0, 1]
    with pytest.raises(ValueError, match="no 2"):
        next(reading)


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    pulled: list[int] = []
    reading = read_ahead(numbers(10**6, pulled), 3)
    next(reading)
    reading.close()
    assert threading.active_count() == before
    assert len(pulled) <= 5


@pytest.mark.parametrize("depth", [0, 2, 50])
def test_map_ahead_keeps_order_and_bound(depth: int) -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        time.sleep(0.002 * (i % 3))
        return i * i

    with ThreadPoolExecutor(4) as pool:
        got = []
        for square in map_ahead(pool, work, range(30), depth):
            got.append(square)
            assert len(started) <= len(got) + depth
    assert got == [i * i for i in range(30)]


def test_map_ahead_gives_an_error_at_its_place_and_cancels_the_rest() -> None:
    done: list[int] = []

    def work(i: int) -> int:
        if i == 1:
            raise ValueError("no 1")
        time.sleep(0.01)
        done.append(i)
        return i

    with ThreadPoolExecutor(1) as pool:
        mapping = map_ahead(pool, work, range(100), 50)
        assert next(mapping) == 0
        with pytest.raises(ValueError, match="no 1"):
            next(mapping)
    assert len(done) < 5
