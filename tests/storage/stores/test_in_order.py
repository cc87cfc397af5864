from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator

import pytest

from maskmill.storage.stores.in_order import BATCH_SIZE, QUEUED_BATCHES, in_order


def test_results_come_in_the_order_of_the_units() -> None:
    def work(unit: int) -> Iterator[tuple[int, int]]:
        time.sleep(random.Random(unit).random() * 0.005)
        return ((unit, index) for index in range(unit % 5))

    found = list(in_order(range(60), work, 7))
    assert found == [(unit, index) for unit in range(60) for index in range(unit % 5)]


def test_nothing_to_do_is_nothing() -> None:
    assert list(in_order([], lambda unit: iter([unit]), 3)) == []


def test_an_error_comes_where_its_result_would() -> None:
    def work(unit: int) -> Iterator[int]:
        yield unit
        if unit == 2:
            raise ZeroDivisionError

    found = in_order(range(100), work, 4)
    assert list(itertools.islice(found, 3)) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_units_are_taken_and_run_ahead_within_bounds() -> None:
    taken, produced = itertools.count(), itertools.count()
    lock = threading.Lock()

    def units() -> Iterator[int]:
        while True:
            yield next(taken)

    def work(unit: int) -> Iterator[int]:
        while True:
            with lock:
                yield next(produced)

    found = in_order(units(), work, 3)
    next(found)
    time.sleep(0.3)
    assert next(taken) <= 4
    assert next(produced) <= 3 * BATCH_SIZE * (QUEUED_BATCHES + 2)
    found.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("examine")]
