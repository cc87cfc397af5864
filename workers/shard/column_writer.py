"""Writes one shard of a column in a thread of its own: tar, then index rows; nothing counts before a commit.

What is added is a call that gives the encoded sample; it may still be under way in an encode thread, and is
waited for here, in order. An exception in the writing comes out of the next `add` or of `finish`; leaving the
context without `finish` leaves no object behind.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import CommitRecord, Reject
from maskmill.storage.shards.index import IndexField, write_index
from maskmill.storage.shards.shards import Sample, WrittenObject, write_shard
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.meter import Meter
from maskmill.workers.stages.base import EncodedSample


class _Abandoned(Exception):
    """The shard is not to be written after all."""


@dataclass(frozen=True)
class Draft:
    """A column's shard, written and not yet committed."""

    version: ColumnVersion
    task: ShardTask
    data: WrittenObject
    index: WrittenObject | None
    rejects: tuple[Reject, ...]
    repair: int = 0

    def commit(
        self, *, inputs: Mapping[str, str], models: Mapping[str, str], seconds_by_step: Mapping[str, float]
    ) -> CommitRecord:
        """Makes it exist, or gives the record of another attempt that came first (ours is then removed).

        Args:
            inputs: sha256 of the records it was made from, by column.
            models: identity of each model, by role.
            seconds_by_step: what its making took.

        Raises:
            StorageError: the store failed.
        """
        record = CommitRecord(
            column=self.version.column,
            fingerprint=self.version.fingerprint,
            shard=self.task.shard,
            attempt=self.task.attempt,
            data=self.data,
            index=self.index,
            num_read=self.data.num_samples + len(self.rejects),
            num_written=self.data.num_samples,
            rejects=self.rejects,
            inputs=inputs,
            models=models,
            seconds_by_step=seconds_by_step,
            created_utc=now_utc(),
            repair=self.repair,
        )
        return self.version.commit(record)

    def discard(self) -> None:
        """Removes what was written."""
        for written in (self.data, self.index):
            if written is not None:
                self.version.store.delete(written.name)


class ColumnWriter:
    """A context; see the file's header.

    Args:
        version: the column version.
        task: names the attempt.
        meter: gets "<column>.write" and the masks done.
        depth: samples that may wait.
        index: fields of the rows that are written beside the tar; none writes no index.
        repair: number of the record that it is written for.
    """

    def __init__(
        self,
        version: ColumnVersion,
        task: ShardTask,
        meter: Meter,
        *,
        depth: int,
        index: tuple[IndexField, ...],
        repair: int = 0,
    ) -> None:
        self._version = version
        self._task = task
        self._meter = meter
        self._index = index
        self._repair = repair
        self._queue: queue.Queue[Callable[[], EncodedSample] | None] = queue.Queue(max(1, depth))
        self._rejects: list[Reject] = []
        self._abandoned = False
        self._finished = False

    def __enter__(self) -> ColumnWriter:
        self._thread = ThreadPoolExecutor(1, f"write-{self._version.column}")
        self._written: Future[tuple[WrittenObject, WrittenObject | None]] = self._thread.submit(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._abandoned = True
            self._put(None)
        self._thread.shutdown(wait=True)

    def add(self, sample: Callable[[], EncodedSample]) -> None:
        """Takes the next sample; blocks while `depth` of them wait."""
        self._put(sample)
        if self._written.done():
            self._written.result()  # it ended early: its error comes out here

    def reject(self, reject: Reject) -> None:
        """Takes note of a key that has no sample here."""
        self._rejects.append(reject)
        self._meter.count(rejects=1)

    def finish(self) -> Draft:
        """Waits until all is written."""
        self._put(None)
        self._finished = True
        data, index = self._written.result()
        return Draft(self._version, self._task, data, index, tuple(self._rejects), self._repair)

    def _put(self, item: Callable[[], EncodedSample] | None) -> None:
        while not self._written.done():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def _write(self) -> tuple[WrittenObject, WrittenObject | None]:
        store, shard, attempt = self._version.store, self._task.shard, self._task.attempt
        rows: list[Mapping[str, object]] = []
        data = write_shard(store, self._version.data_name(shard, attempt), self._samples(rows))
        if not self._index:
            return data, None
        with self._meter.step(f"{self._version.column}.index"):
            return data, write_index(store, self._version.index_name(shard, attempt), rows, self._index)

    def _samples(self, rows: list[Mapping[str, object]]) -> Iterator[Sample]:
        while (item := self._queue.get()) is not None and not self._abandoned:
            encoded = item()
            rows.extend(encoded.rows)
            self._meter.count(masks=encoded.num_masks)
            with self._meter.step(f"{self._version.column}.write"):
                yield encoded.sample
        if self._abandoned:
            raise _Abandoned
