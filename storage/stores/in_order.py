"""Work on several units at once, results in the order of the units, memory bounded.

Each running unit fills its own bounded queue; the consumer drains the first one while the others run ahead.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BATCH_SIZE = 64  # results that change hands at once
QUEUED_BATCHES = 64  # for each unit that runs ahead

Unit = TypeVar("Unit")
Result = TypeVar("Result")


def in_order(
    units: Iterable[Unit], work: Callable[[Unit], Iterator[Result]], num_threads: int
) -> Generator[Result]:
    """The results of `work` on each unit, as if one after the other. Close it if you don't read to the end.

    Args:
        units: taken lazily, at most `num_threads` ahead.
        work: runs in a thread; its exception is raised where its next result would be.
        num_threads: units worked on at once.
    """
    stopped = threading.Event()
    running: deque[tuple[queue.Queue[list[Result] | None], Future[None]]] = deque()
    pending = iter(units)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="examine") as pool:
        try:
            while True:
                for unit in itertools.islice(pending, num_threads - len(running)):
                    results: queue.Queue[list[Result] | None] = queue.Queue(QUEUED_BATCHES)
                    running.append((results, pool.submit(_fill, results, work, unit, stopped)))
                if not running:
                    return
                results, future = running.popleft()
                while (batch := results.get()) is not None:
                    yield from batch
                future.result()
        finally:
            stopped.set()


def _fill(
    results: queue.Queue[list[Result] | None],
    work: Callable[[Unit], Iterator[Result]],
    unit: Unit,
    stopped: threading.Event,
) -> None:
    batch: list[Result] = []
    try:
        for result in work(unit):
            batch.append(result)
            if len(batch) == BATCH_SIZE:
                _put(results, batch, stopped)
                batch = []
            if stopped.is_set():
                return
    finally:
        if batch:
            _put(results, batch, stopped)
        _put(results, None, stopped)


def _put(
    results: queue.Queue[list[Result] | None], batch: list[Result] | None, stopped: threading.Event
) -> None:
    while not stopped.is_set():
        try:
            results.put(batch, timeout=0.2)
        except queue.Full:
            continue
        return
