"""Work ahead of a consumer in threads, in order, never more than `depth` items ahead.

Both functions are pulled: nothing starts before the first item is asked for, an error comes out where its
item would have, and closing the generator ends the threads after the item they are at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from enum import Enum
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _End(Enum):
    END = 0


def read_ahead(items: Iterable[T], depth: int) -> Generator[T]:
    """The items, pulled by a thread of their own up to `depth` ahead.

    Args:
        items: what blocks while it is read, such as a tar behind a network.
        depth: 0 pulls in the consumer's thread.
    """
    if depth == 0:
        yield from items
        return
    iterator = iter(items)

    def pull() -> T | _End:
        """The next item, in the thread."""
        return next(iterator, _End.END)

    with ThreadPoolExecutor(1, "read-ahead") as thread:
        pulls = deque(thread.submit(pull) for _ in range(depth))
        try:
            while not isinstance(item := pulls.popleft().result(), _End):
                pulls.append(thread.submit(pull))
                yield item
        finally:
            _cancel(pulls)
    if isinstance(iterator, Generator):
        iterator.close()


def map_ahead(pool: Executor, work: Callable[[T], R], items: Iterable[T], depth: int) -> Generator[R]:
    """`work(item)` for each item, in order, done by the pool up to `depth` items ahead.

    Args:
        pool: threads; may be shared.
        work: called in them.
        items: pulled in the consumer's thread.
        depth: 0 begins an item only when the one before has been taken.
    """
    results: deque[Future[R]] = deque()
    try:
        for item in items:
            results.append(pool.submit(work, item))
            if len(results) > depth:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
    finally:
        _cancel(results)


def _cancel(futures: Iterable[Future[R]]) -> None:
    for future in futures:
        future.cancel()
