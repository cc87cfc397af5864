"""Inside `one_thread`, what the code under test leaves to threads is done at once by whoever leaves it.

The scheduler decides about calls of actors; threads of their own would run where the machine lets them, and
no schedule could be played again. For the same reason names that nobody else has come from the world's seed,
and what records say of when and how long is fixed.

It does not know: the order that those threads would really have; tests of in_order.py and ahead.py do.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from maskmill.flows.runs.steps import publishing
from maskmill.storage.care import stale
from maskmill.storage.dataset import columns, manifest, merge
from maskmill.storage.dataset.records import parse_record
from maskmill.storage.drivers import lease
from maskmill.storage.plan import tables
from maskmill.storage.shards import index
from maskmill.storage.shards.arrow import read_table
from maskmill.storage.shards.shards import WrittenObject, read_object
from maskmill.storage.stores import in_order
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.shard import ahead, column_writer, meter, recalled, turn

CREATED = "2025-01-01T00:00:00+00:00"


class AtOnce:
    """An executor that does what it is given before it returns."""

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()

    def submit(self, work: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        """Its result, or its error, is there."""
        return _settled(Future(), lambda: work(*args, **more))

    def map(self, work: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        """One after the other."""
        return map(work, *items)

    def shutdown(self, wait: bool = True) -> None:
        """Nothing is left to be done."""


class WhenAsked(AtOnce):
    """An executor that begins when a result is waited for: for work that reads a queue filled meanwhile."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self._waiting: list[_Late] = []

    def submit(self, work: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        """See the class."""
        self._waiting.append(_Late(lambda: work(*args, **more)))
        return self._waiting[-1]

    def shutdown(self, wait: bool = True) -> None:
        """What nobody waited for is done now."""
        for one in self._waiting:
            one.begin()


class _Late(Future[Any]):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work: Callable[[], Any] | None = work

    def begin(self) -> None:
        """Does it, unless it is done."""
        work, self._work = self._work, None
        if work is not None:
            _settled(self, work)

    def result(self, timeout: float | None = None) -> Any:
        """Does it first."""
        self.begin()
        return super().result(timeout)


class _NoThread:
    """A heartbeat's thread: the world beats instead."""

    def __init__(self, **how: Any) -> None:
        pass

    def start(self) -> None:
        """Nothing."""

    def join(self) -> None:
        """Nothing."""


def _settled(future: Future[Any], work: Callable[[], Any]) -> Future[Any]:
    try:
        future.set_result(work())
    except BaseException as exc:  # noqa: BLE001 - an actor's end is one too
        future.set_exception(exc)
    return future


# The same few bytes are read over and over: what they say is found out once. The store is asked each time.
_parsed = lru_cache(maxsize=4096)(parse_record)
_table = lru_cache(maxsize=4096)(read_table)
_read_tables = manifest._read_tables


@lru_cache(maxsize=4096)
def _manifest_of(data: bytes, written: WrittenObject, names: tuple[str, ...]) -> tuple[pa.Table, ...]:
    """A manifest's tables, from its bytes."""
    held: Any = SimpleNamespace(root="", read=lambda name: data)
    return tuple(_read_tables(held, written, names, None))


def _tables_of(store: ObjectStore, written: WrittenObject, names: Sequence[str], shards: object) -> Any:
    """See `_read_tables`; every row, which is what a small manifest is read for."""
    assert shards is None, "a simulated manifest is a small one"
    yield from _manifest_of(read_object(store, written), written, tuple(names))


@contextmanager
def one_thread(names: Random) -> Iterator[None]:
    """See the file's header.

    Args:
        names: where unique names come from.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (in_order, merge, stale, ahead, turn):
            patch.setattr(module, "ThreadPoolExecutor", AtOnce)
        patch.setattr(column_writer, "ThreadPoolExecutor", WhenAsked)
        patch.setattr(lease.threading, "Thread", _thread_of(lease.threading.Thread))
        num_threads = pa.cpu_count()
        pa.set_cpu_count(1)
        patch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: 0.0))
        for module in (column_writer, recalled, publishing):
            patch.setattr(module, "now_utc", lambda: CREATED)
        patch.setattr(columns, "parse_record", _parsed)
        patch.setattr(manifest, "_read_tables", _tables_of)
        for module in (index, tables):
            patch.setattr(module, "read_table", _table)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=names.getrandbits(128), version=4))
        try:
            yield
        finally:
            pa.set_cpu_count(num_threads)


def _thread_of(real: Any) -> Callable[..., Any]:
    return lambda *args, **how: _NoThread() if how.get("name") == "heartbeat" else real(*args, **how)
