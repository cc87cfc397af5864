"""Work in batches that shrink where memory runs out: said once, and kept small from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)


class Batches:
    """Batches of one model.

    Args:
        size: items together, at least 1; halved for good whenever memory runs out.
        title: of the model, for the log.
    """

    def __init__(self, size: int, title: str) -> None:
        self.size = size
        self._title = title

    def run(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """The results of all items, in order.

        Args:
            items: any number.
            work: gives a result for each item of a batch.

        Raises:
            MemoryError, RuntimeError: memory runs out even for a single item; whatever else `work` raises.
        """
        return [result for results in self.each(items, work) for result in results]

    def each(self, items: Sequence[T], work: Callable[[Sequence[T]], R]) -> Iterator[R]:
        """The result of each batch, in order; the next batch is begun when its result is asked for.

        Args:
            items: any number.
            work: gives a result for a batch.

        Raises:
            MemoryError, RuntimeError: as `run`.
        """
        done = 0
        while done < len(items):
            batch = items[done : done + self.size]
            try:
                result = work(batch)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(batch) == 1:
                    raise
                self._halve(len(batch))
                continue
            done += len(batch)
            yield result

    def _halve(self, tried: int) -> None:
        """Goes on with half of what was tried."""
        self.size = tried // 2
        log.warning("%s: out of memory with %d together; going on with %d", self._title, tried, self.size)
        _free()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or torch's on any device (its CPU allocator has no own type)."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in str(error)


def _free() -> None:
    """Gives what torch holds in reserve on a GPU back to it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
