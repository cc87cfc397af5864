"""A shard through the stages, without ray: read, decode, run, encode, commit.

    sources -> read, normalise (threads) -> images tar (thread)
                 \\-> pictures -> models (the caller's thread) -> encode (threads) -> a tar a column (threads)

A shard whose images were taken in before starts from those instead, and committed columns that a missing one
reads are read back beside them. Either way annotations are made from the very bytes that are stored, so doing
a shard again gives equal ones. Commits go in the columns' order, `images` first; if another attempt's commit
of a column came first, what was derived from ours is dropped and redone from the committed one. All queues
are bounded, so a shard takes as much memory as a few images.

Every column accounts for every image: one that a column it reads has rejected is rejected with the reason
`no_<column>`. rejects.py is the one place where a bad sample is caught; any other error ends the turn:
pool.py decides whether the shard is tried again or the run stops.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from maskmill.pipeline.machine.batches import is_out_of_memory
from maskmill.pipeline.unfit import UnfitPicture
from maskmill.storage.dataset.records import CommitRecord, Reject, first_rejects
from maskmill.storage.errors import DamagedObject, Recalled
from maskmill.storage.plan.marks import marks_of
from maskmill.storage.plan.sources import PlannedImage
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.run.in_hand import Announcement, announce, withdraw
from maskmill.workers.run.spec import IMAGES, MASKS, ShardReport, ShardTask
from maskmill.workers.shard.ahead import map_ahead, read_ahead
from maskmill.workers.shard.column_writer import ColumnWriter, Draft
from maskmill.workers.shard.meter import Meter
from maskmill.workers.shard.next_shard import Prepared
from maskmill.workers.shard.recalled import settle, take_back
from maskmill.workers.shard.rejects import CRASHED, check_sources, in_hand, or_reject
from maskmill.workers.shard.stored import Stored, StoredPictures
from maskmill.workers.shard.taken_in import Source, TakenIn, sources_of, take_in
from maskmill.workers.stages import images
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult
from maskmill.workers.stages.build import Stages

if TYPE_CHECKING:
    from maskmill.storage.shards.index import IndexField

T = TypeVar("T")

__all__ = ["CRASHED", "run_shard"]

_AHEAD_PER_THREAD = 3
_READ_DEPTH = 4
_WRITE_DEPTH = 16
_MAX_RECALLS = 10  # in a row, each by another `forget`


def run_shard(stages: Stages, task: ShardTask, meter: Meter | None = None) -> ShardReport:
    """Works one turn at a shard: afterwards every column of the run is committed for it.

    Args:
        stages: of this worker.
        task: the shard and the attempt's name.
        meter: shows progress to other threads meanwhile.

    Returns:
        Counts from the commit records, ours or the winners'.

    Raises:
        StorageError: the store failed, a committed object is damaged, or all sources of the shard are gone.
    """
    began = time.perf_counter()
    meter = meter or Meter()
    meter.begin(task)
    try:
        turn, already_done = _settled_turn(stages, task, meter)
        if task.one_by_one:
            withdraw(stages.store, task)
        return _report(turn, already_done, time.perf_counter() - began)
    finally:
        meter.end()


def _settled_turn(stages: Stages, task: ShardTask, meter: Meter) -> tuple[_Turn, bool]:
    """The turn, done, and whether nothing was left for it; anew where images were forgotten meanwhile."""
    for recall in range(_MAX_RECALLS):
        settle(stages.store, task.shard)
        try:
            with ExitStack() as stack:
                turn = _Turn(stages, task, meter, stack)
                already_done = not turn.missing and turn.images is not None
                turn.run()
            return turn, already_done
        except Recalled:
            take_back(stages.store, stages.spec, task)
            meter.restart()
            if recall == _MAX_RECALLS - 1:
                raise
    raise AssertionError


class _Turn:
    """One turn: its threads, and the records it has found or made so far."""

    def __init__(self, stages: Stages, task: ShardTask, meter: Meter, stack: ExitStack) -> None:
        self.stages, self.task, self.meter = stages, task, meter
        work = stages.work
        self.depth = 0 if task.one_by_one else work.decode_threads * _AHEAD_PER_THREAD
        self.decoders = stack.enter_context(ThreadPoolExecutor(work.decode_threads, "decode"))
        self.encoders = stack.enter_context(ThreadPoolExecutor(work.encode_threads, "encode"))
        self.lost_race = False
        self.repairs = stages.spec.repairs.get(task.shard, {})
        self.marks = marks_of(stages.store, task.shard)
        self.images = self._found(IMAGES)
        self.records = {stage.column: self._found(stage.column) for stage in stages.stages}

    def _found(self, column: str) -> CommitRecord | None:
        """The record in force; of a column to be repaired, only if this very repair was made already."""
        wanted = self.repairs.get(column)
        try:
            record = self.stages.version(column).record(self.task.shard)
        except DamagedObject:
            if wanted is None:
                raise
            return None
        return record if record is not None and record.repair >= (wanted or 0) else None

    @property
    def missing(self) -> list[Stage]:
        """The stages whose column lacks this shard, in order."""
        return [stage for stage in self.stages.stages if self.records[stage.column] is None]

    def run(self) -> None:
        """Commits what is missing: images first, then what is made of the images in force."""
        if self.images is None and self.task.one_by_one:
            for _ in self._take_in():
                pass
        if self.images is None:
            drafts = self._annotate(self._take_in())
            if _known(self.images).attempt == self.task.attempt:
                self._commit(drafts)
            else:
                self._drop(drafts)
        while self.missing:
            self._commit(self._annotate(self._stored(_known(self.images))))

    # Pictures, from the sources or from the images column

    def _take_in(self) -> Generator[Picture]:
        """Pictures of sources as they are stored; the images column is committed when they end."""
        planned, ingest = self.stages.planned(self.task.shard), self.stages.spec.ingest

        def taking(source: Source | Prepared) -> TakenIn | Reject:
            """In a decode thread; what was taken in ahead is there already."""
            if isinstance(source, Prepared):
                return source.charge(self.meter)
            return take_in(source, ingest=ingest, forgotten=self.marks, task=self.task, meter=self.meter)

        rejects: list[Reject] = []
        with (
            self._writer(IMAGES, images.INDEX) as writer,
            closing(self._sources(planned)) as sources,
        ):
            announced = self._announced(IMAGES, sources, lambda source: source.planned.key)
            for taken in map_ahead(self.decoders, taking, announced, self.depth):
                if isinstance(taken, Reject):
                    rejects.append(taken)
                    writer.reject(taken)
                else:
                    writer.add(partial(_same, taken.encoded))
                    yield taken.picture

            check_sources(self.task, rejects, len(planned))
            self.images = writer.finish().commit(
                inputs={}, models={}, seconds_by_step=self._seconds_of(IMAGES)
            )

    def _sources(self, planned: Sequence[PlannedImage]) -> Generator[Source | Prepared]:
        """The shard's sources in order, begun with what was taken in ahead; then the next shard is begun."""
        prepared = [] if self.task.one_by_one else self.stages.next_shard.take(self.task.shard)
        wanted = self.marks | self.task.skip_keys.keys()
        if any(found.planned.key in wanted for found in prepared):
            prepared = []  # forgotten meanwhile, or not to be touched
        yield from prepared
        if left := planned[len(prepared) :]:
            depth, ingest = min(self.depth, _READ_DEPTH), self.stages.spec.ingest
            with closing(sources_of(left, depth, max_bytes=ingest.max_bytes)) as sources:
                yield from sources
        self._begin_next()

    def _begin_next(self) -> None:
        """The decoders have all of this shard: the first images of the next are taken in meanwhile."""
        stages, plan, shard = self.stages, self.stages.plan, self.task.likely_next
        if shard is None or self.task.one_by_one or shard >= plan.num_shards:
            return
        count = max(stages.work.decode_threads, stages.work.images_per_batch)

        def first() -> Sequence[PlannedImage]:
            """In its thread: which images they are."""
            return plan.images(shard)[:count]

        stages.next_shard.begin(shard, first, stages.version(IMAGES), stages.spec.ingest)

    def _stored(self, images: CommitRecord) -> Generator[Picture | Reject]:
        """Pictures of the images column, with what the missing stages read of committed ones."""
        missing = self.missing
        column = missing[0].column
        pictures = StoredPictures(self.stages, missing, images, self.records, self.meter)

        def decode(stored: Stored) -> Picture | Reject:
            """In a decode thread."""
            return or_reject(self.task, column, stored.image.key, lambda: pictures.decode(column, stored))

        with closing(read_ahead(pictures.read(), min(self.depth, _READ_DEPTH))) as found:
            announced = self._announced(column, found, lambda stored: stored.image.key)
            yield from map_ahead(self.decoders, decode, announced, self.depth)

    def _announced(self, column: str, items: Iterable[T], key_of: Callable[[T], str]) -> Iterator[T]:
        """The items; in a one-by-one turn each is announced before it is handed out."""
        for item in items:
            if self.task.one_by_one:
                announce(self.stages.store, self.task, Announcement(column, key_of(item)))
            yield item

    # Models

    def _annotate(self, pictures: Generator[Picture | Reject] | Generator[Picture]) -> list[Draft]:
        """Runs the missing stages over the pictures and writes their columns, uncommitted."""
        with ExitStack() as stack:
            todo = [
                (stage, stack.enter_context(self._writer(stage.column, stage.index)))
                for stage in self.missing
            ]
            stack.enter_context(closing(pictures))
            size = 1 if self.task.one_by_one else self.stages.work.images_per_batch
            while batch := self._next_batch(pictures, size):
                good = [item for item in batch if isinstance(item, Picture)]
                self.stages.hold(good)
                for stage, writer in todo:
                    batch = self._run_stage(stage, writer, batch)
                self.meter.count(images=len(good))
            return [writer.finish() for _, writer in todo]

    def _next_batch(self, pictures: Iterator[Picture | Reject], size: int) -> list[Picture | Reject]:
        column = self.missing[0].column if self.missing else IMAGES
        with self.meter.step(f"{column}.wait_for_images"):
            return list(islice(pictures, size))

    def _run_stage(
        self, stage: Stage, writer: ColumnWriter, batch: Sequence[Picture | Reject]
    ) -> list[Picture | Reject]:
        """One stage over one batch, in the pictures' order; gives the pictures with its outputs.

        A batch that doesn't fit, or holds a picture that can't be used, is split."""
        ready = [item if isinstance(item, Reject) else _ready(stage, item) for item in batch]
        outcomes = iter(self._results(stage, [item for item in ready if isinstance(item, Picture)]))
        passed: list[Picture | Reject] = []
        for item, checked in zip(batch, ready, strict=True):
            outcome = checked if isinstance(checked, Reject) else next(outcomes)
            if isinstance(outcome, Reject):
                writer.reject(outcome)
            else:
                self._write(stage, writer, outcome)
            output = outcome if isinstance(outcome, Reject) else outcome.output
            passed.append(
                item
                if isinstance(item, Reject)
                else replace(item, given={**item.given, stage.column: output})
            )
        return passed

    def _write(self, stage: Stage, writer: ColumnWriter, result: StageResult) -> None:
        self.meter.add_seconds({f"{stage.column}.{name}": s for name, s in result.seconds_by_step.items()})
        encoding = self.encoders.submit(self._encode, stage.column, result)
        if self.task.one_by_one:
            encoding.result()
        writer.add(encoding.result)

    def _results(self, stage: Stage, pictures: Sequence[Picture]) -> list[StageResult | Reject]:
        if not pictures:
            return []
        self.meter.at(pictures[0].key)
        if self.task.one_by_one and stage is not self.missing[0]:
            announce(self.stages.store, self.task, Announcement(stage.column, pictures[0].key))
        if len(pictures) == 1:
            return [or_reject(self.task, stage.column, pictures[0].key, lambda: stage.run(pictures)[0])]
        try:
            with in_hand(self.task, stage.column, ", ".join(picture.key for picture in pictures)):
                return list(stage.run(pictures))
        except (MemoryError, RuntimeError, DecodeError, UnfitPicture) as error:
            if not isinstance(error, DecodeError | UnfitPicture) and not is_out_of_memory(error):
                raise
            return [result for picture in pictures for result in self._results(stage, [picture])]

    def _encode(self, column: str, result: StageResult) -> EncodedSample:
        with self.meter.step(f"{column}.json"):
            return result.encode()

    def _writer(self, column: str, index: tuple[IndexField, ...]) -> ColumnWriter:
        return ColumnWriter(
            self.stages.version(column),
            self.task,
            self.meter,
            depth=_WRITE_DEPTH,
            index=index,
            repair=self.repairs.get(column, 0),
        )

    def _commit(self, drafts: Sequence[Draft]) -> None:
        """In order; a draft that was derived from one whose race was lost is dropped: it stays missing."""
        lost: set[str] = set()
        for stage, draft in zip(self.missing, drafts, strict=True):
            if lost & set(stage.reads):
                lost.add(stage.column)
                draft.discard()
                continue

            recorded = stage.reads if stage.recorded is None else stage.recorded
            inputs = {IMAGES: _known(self.images)}
            inputs |= {column: _known(self.records[column]) for column in recorded}
            record = draft.commit(
                inputs={column: record.sha256 for column, record in inputs.items()},
                models=stage.models,
                seconds_by_step=self._seconds_of(stage.column),
            )
            self.records[stage.column] = record
            if record.attempt != self.task.attempt:
                lost.add(stage.column)
                self.lost_race = True
        if self.missing:
            self.meter.restart()

    def _drop(self, drafts: Sequence[Draft]) -> None:
        """Another attempt's images are in force: nothing made of ours may stay."""
        for draft in drafts:
            draft.discard()
        self.meter.restart()

    def _seconds_of(self, column: str) -> dict[str, float]:
        prefix = f"{column}."
        seconds = self.meter.seconds_by_step()
        return {
            step.removeprefix(prefix): spent for step, spent in seconds.items() if step.startswith(prefix)
        }


def _report(turn: _Turn, already_done: bool, wall_s: float) -> ShardReport:
    """From the records in force, whoever wrote them."""
    images = _known(turn.images)
    records = [_known(record) for record in turn.records.values()]
    masks = turn.records.get(MASKS)
    rejects = first_rejects([images, *records])
    return ShardReport(
        shard=turn.task.shard,
        attempt=turn.task.attempt,
        num_images=images.num_read,
        num_annotated=images.num_read - len(rejects),
        num_masks=masks.index.num_samples if masks and masks.index else 0,
        rejects=dict(sorted(Counter(reject.reason for reject in rejects.values()).items())),
        seconds_by_step=turn.meter.seconds_by_step(),
        wall_s=round(wall_s, 3),
        lost_race=turn.lost_race,
        already_done=already_done,
        remarks=turn.meter.remarks(),
        notes=turn.stages.notes.take() if turn.stages.notes is not None else (),
    )


def _ready(stage: Stage, picture: Picture) -> Picture | Reject:
    """The picture, if every column that the stage reads has it."""
    for column in stage.reads:
        found = picture.given[column]
        if isinstance(found, Reject):
            return Reject(picture.key, f"no_{column}", f"{column} rejected it: {found.reason}")
    return picture


def _same(encoded: EncodedSample) -> EncodedSample:
    return encoded


def _known(record: CommitRecord | None) -> CommitRecord:
    assert record is not None
    return record
